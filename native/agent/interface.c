#define _GNU_SOURCE
#include "interface.h"

#include <arpa/inet.h>
#include <errno.h>
#include <net/if.h>
#include <net/if_arp.h>
#include <net/route.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

static struct sockaddr internet(const void *address) {
  struct sockaddr_in in = {.sin_family = AF_INET};
  if (address) memcpy(&in.sin_addr, address, 4);
  struct sockaddr any;
  memcpy(&any, &in, sizeof any);
  return any;
}

static int set_up(int fd, const char *name, bool up) {
  struct ifreq request = {0};
  strcpy(request.ifr_name, name);
  if (ioctl(fd, SIOCGIFFLAGS, &request) != 0) return errno;
  if (up) request.ifr_flags |= IFF_UP;
  else request.ifr_flags &= ~IFF_UP;
  return ioctl(fd, SIOCSIFFLAGS, &request) == 0 ? 0 : errno;
}

static int set_addresses(int fd, const struct network *network) {
  uint32_t mask = htonl(network->prefix ? ~0U << (32 - network->prefix) : 0);
  struct ifreq mac = {.ifr_name = "eth0", .ifr_hwaddr.sa_family = ARPHRD_ETHER}, address = {.ifr_name = "eth0", .ifr_addr = internet(network->address)},
               netmask = {.ifr_name = "eth0", .ifr_netmask = internet(&mask)}, mtu = {.ifr_name = "eth0", .ifr_mtu = network->mtu};
  memcpy(mac.ifr_hwaddr.sa_data, network->mac, 6);
  // The hardware address first, while the interface is down: IPv6 derives its own from it on the first up.
  int error = set_up(fd, "eth0", false);
  if (error) return error;
  if (ioctl(fd, SIOCSIFHWADDR, &mac) != 0) return errno;
  if (network->mtu && ioctl(fd, SIOCSIFMTU, &mtu) != 0) return errno;
  if (ioctl(fd, SIOCSIFADDR, &address) != 0 || ioctl(fd, SIOCSIFNETMASK, &netmask) != 0) return errno;
  return set_up(fd, "eth0", true);
}

static int add_default_route(int fd, const uint8_t gateway[4]) {
  struct rtentry route = {.rt_dst = internet(NULL), .rt_genmask = internet(NULL), .rt_gateway = internet(gateway), .rt_flags = RTF_UP | RTF_GATEWAY};
  return ioctl(fd, SIOCADDRT, &route) == 0 || errno == EEXIST ? 0 : errno;
}

int interface_set(const struct network *network) {
  static const uint8_t none[4];
  int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return errno;
  int error = set_up(fd, "lo", true);
  if (!error) error = set_addresses(fd, network);
  if (!error && memcmp(network->gateway, none, 4) != 0) error = add_default_route(fd, network->gateway);
  close(fd);
  return error;
}
