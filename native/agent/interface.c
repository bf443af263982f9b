#define _GNU_SOURCE
#include "interface.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/neighbour.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <net/if_arp.h>
#include <net/route.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

// Whether eth0 has an IPv6 address from here. It is in the memory of a copied machine, too.
static bool has_ipv6;

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

// ip-sysctl: the settings of one interface.
static int write_setting(const char *name, const char *value) {
  char path[80];
  snprintf(path, sizeof path, "/proc/sys/net/ipv6/conf/eth0/%s", name);
  int fd = open(path, O_WRONLY | O_CLOEXEC);
  if (fd < 0) return errno;
  int error = write(fd, value, strlen(value)) < 0 ? errno : 0;
  close(fd);
  return error;
}

// Addresses, routes and neighbours go with it.
static int disable_ipv6(void) {
  int error = has_ipv6 ? write_setting("disable_ipv6", "1") : 0;
  if (!error) has_ipv6 = false;
  return error;
}

static int enable_ipv6(void) {
  // No addresses or routes but ours: none of its own making (addr_gen_mode 1), none that are advertised.
  static const char *const settings[][2] = {{"accept_ra", "0"}, {"autoconf", "0"}, {"addr_gen_mode", "1"}, {"accept_dad", "0"}, {"accept_redirects", "0"}, {"disable_ipv6", "0"}};
  int error = 0;
  for (size_t i = 0; i < sizeof settings / sizeof *settings && !error; i++) error = write_setting(settings[i][0], settings[i][1]);
  return error;
}

struct change {
  struct nlmsghdr head;
  union {
    struct ifaddrmsg address;
    struct ndmsg neighbour;
    struct rtmsg route;
  };
  uint8_t attributes[64];
};

static struct change change_of(uint16_t type, size_t body) {
  return (struct change){.head = {.nlmsg_len = (uint32_t)NLMSG_LENGTH(body), .nlmsg_type = type, .nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE}};
}

// `length` is at most 16 and there are two of them: they fit.
static void add_attribute(struct change *change, uint16_t type, const void *bytes, size_t length) {
  const struct rtattr head = {.rta_len = (uint16_t)RTA_LENGTH(length), .rta_type = type};
  uint8_t *into = (uint8_t *)change + NLMSG_ALIGN(change->head.nlmsg_len);
  memcpy(into, &head, sizeof head);
  memcpy(into + RTA_LENGTH(0), bytes, length);
  change->head.nlmsg_len = (uint32_t)(NLMSG_ALIGN(change->head.nlmsg_len) + RTA_ALIGN(head.rta_len));
}

// The kernel has answered when `send` is back.
static int apply(int fd, const struct change *change) {
  struct {
    struct nlmsghdr head;
    struct nlmsgerr error;
    uint8_t rest[256];
  } answer;
  if (send(fd, change, change->head.nlmsg_len, 0) < 0) return errno;
  ssize_t length = recv(fd, &answer, sizeof answer, MSG_DONTWAIT);
  if (length < 0) return errno;
  if ((size_t)length < NLMSG_LENGTH(sizeof answer.error) || answer.head.nlmsg_type != NLMSG_ERROR) return EPROTO;
  return -answer.error.error;
}

static int add_ipv6(int fd, uint32_t eth0, const struct network6 *network) {
  struct change address = change_of(RTM_NEWADDR, sizeof address.address);
  address.address = (struct ifaddrmsg){.ifa_family = AF_INET6, .ifa_prefixlen = 128, .ifa_flags = IFA_F_NODAD, .ifa_index = eth0};
  add_attribute(&address, IFA_LOCAL, network->address, sizeof network->address);
  add_attribute(&address, IFA_ADDRESS, network->address, sizeof network->address);
  struct change neighbour = change_of(RTM_NEWNEIGH, sizeof neighbour.neighbour);
  neighbour.neighbour = (struct ndmsg){.ndm_family = AF_INET6, .ndm_ifindex = (int)eth0, .ndm_state = NUD_PERMANENT};
  add_attribute(&neighbour, NDA_DST, network->gateway, sizeof network->gateway);
  add_attribute(&neighbour, NDA_LLADDR, network->gateway_mac, sizeof network->gateway_mac);
  struct change route = change_of(RTM_NEWROUTE, sizeof route.route);
  route.route = (struct rtmsg){.rtm_family = AF_INET6, .rtm_table = RT_TABLE_MAIN, .rtm_protocol = RTPROT_STATIC, .rtm_type = RTN_UNICAST};
  add_attribute(&route, RTA_GATEWAY, network->gateway, sizeof network->gateway);
  add_attribute(&route, RTA_OIF, &eth0, sizeof eth0);
  int error = apply(fd, &address);
  if (!error) error = apply(fd, &neighbour);
  if (!error) error = apply(fd, &route);
  return error;
}

int interface_set6(const struct network6 *network) {
  uint32_t eth0 = if_nametoindex("eth0");
  if (!eth0) return errno;
  int error = disable_ipv6();
  if (error) return error;
  int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
  if (fd < 0) return errno;
  has_ipv6 = true;
  error = enable_ipv6();
  if (!error) error = add_ipv6(fd, eth0, network);
  close(fd);
  // Half of it is nothing.
  if (error) disable_ipv6();
  return error;
}

int interface_set(const struct network *network) {
  static const uint8_t none[4];
  int lost = disable_ipv6();
  if (lost) return lost;
  int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return errno;
  int error = set_up(fd, "lo", true);
  if (!error) error = set_addresses(fd, network);
  if (!error && memcmp(network->gateway, none, 4) != 0) error = add_default_route(fd, network->gateway);
  close(fd);
  return error;
}
