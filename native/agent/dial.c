#define _GNU_SOURCE
#include "dial.h"

#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "layer-dial.h"

static void fail(struct channel *ch, int error) {
  char what[24];
  snprintf(what, sizeof what, "port %u", ch->port);
  channel_fail(ch, error, what);
}

// Where a server may listen that wants to be reached, or not: on every address, on its loopback only, on its network only.
enum { TRY_LOOPBACK, TRY_NETWORK, TRY_LOOPBACK_6, TRIES };

union address {
  struct sockaddr any;
  struct sockaddr_in v4;
  struct sockaddr_in6 v6;
};

// Without a network the answer is the error of netdevice(7).
static int network_address(int fd, struct in_addr *address) {
  struct ifreq request = {.ifr_name = "eth0", .ifr_addr.sa_family = AF_INET};
  if (ioctl(fd, SIOCGIFADDR, &request) != 0) return errno;
  struct sockaddr_in in;
  memcpy(&in, &request.ifr_addr, sizeof in);
  *address = in.sin_addr;
  return 0;
}

// 0 when connected or under way.
static int try_connect(struct channel *ch, int which) {
  union address to = {.v4 = {.sin_family = AF_INET, .sin_port = htons(ch->port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)}};
  if (which == TRY_LOOPBACK_6) to.v6 = (struct sockaddr_in6){.sin6_family = AF_INET6, .sin6_port = htons(ch->port), .sin6_addr = IN6ADDR_LOOPBACK_INIT};
  int fd = socket(to.any.sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd < 0) return errno;
  int error = which == TRY_NETWORK ? network_address(fd, &to.v4.sin_addr) : 0;
  if (!error && connect(fd, &to.any, which == TRY_LOOPBACK_6 ? sizeof to.v6 : sizeof to.v4) != 0) error = errno;
  if (error && error != EINPROGRESS) {
    close(fd);
    return error;
  }
  int sending = fcntl(fd, F_DUPFD_CLOEXEC, 3);
  if (sending < 0) {
    error = errno;
    close(fd);
    return error;
  }
  ch->state = error ? CONNECTING : RUNNING;
  ch->out[0].fd = fd;
  ch->in_fd = sending;
  int on = 1;
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  return 0;
}

// The error of the loopback is the one that means something; the other addresses may not exist.
static void try_rest(struct channel *ch) {
  while (ch->dial_next < TRIES) {
    int which = ch->dial_next++, error = try_connect(ch, which);
    if (!error) return;
    if (which == TRY_LOOPBACK) ch->dial_error = error;
  }
  fail(ch, ch->dial_error);
}

void dial_open(struct channel *ch, uint16_t port) {
  if (port == 0) return layer_dial_open(ch);
  ch->port = port;
  ch->out[1].ended = true;
  ch->dial_next = TRY_LOOPBACK;
  try_rest(ch);
}

void dial_connected(struct channel *ch) {
  int error = 0;
  socklen_t length = sizeof error;
  if (getsockopt(ch->in_fd, SOL_SOCKET, SO_ERROR, &error, &length) != 0) error = errno;
  if (!error) {
    ch->state = RUNNING;
    return;
  }
  if (ch->dial_next == TRY_LOOPBACK + 1) ch->dial_error = error;
  close(ch->out[0].fd);
  close(ch->in_fd);
  ch->out[0].fd = ch->in_fd = -1;
  try_rest(ch);
}
