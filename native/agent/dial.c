#define _GNU_SOURCE
#include "dial.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

#include "layer-dial.h"

static void fail(struct channel *ch, int error) {
  char what[24];
  snprintf(what, sizeof what, "port %u", ch->port);
  channel_fail(ch, error, what);
}

// 0 when connected or under way.
static int try_connect(struct channel *ch, int family) {
  int fd = socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd < 0) return errno;
  struct sockaddr_in v4 = {.sin_family = AF_INET, .sin_port = htons(ch->port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  struct sockaddr_in6 v6 = {.sin6_family = AF_INET6, .sin6_port = htons(ch->port), .sin6_addr = IN6ADDR_LOOPBACK_INIT};
  int failed = family == AF_INET ? connect(fd, (struct sockaddr *)&v4, sizeof v4) : connect(fd, (struct sockaddr *)&v6, sizeof v6);
  int error = failed ? errno : 0;
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

static void try_second(struct channel *ch, int first_error) {
  ch->second_try = true;
  int error = try_connect(ch, AF_INET6);
  // Without IPv6 the first answer is the one that means something.
  if (error) fail(ch, error == ECONNREFUSED ? error : first_error);
}

void dial_open(struct channel *ch, uint16_t port) {
  if (port == 0) return layer_dial_open(ch);
  ch->port = port;
  ch->out[1].ended = true;
  int error = try_connect(ch, AF_INET);
  if (error) try_second(ch, error);
}

void dial_connected(struct channel *ch) {
  int error = 0;
  socklen_t length = sizeof error;
  if (getsockopt(ch->in_fd, SOL_SOCKET, SO_ERROR, &error, &length) != 0) error = errno;
  if (!error) {
    ch->state = RUNNING;
    return;
  }
  if (ch->second_try) return fail(ch, error);
  close(ch->out[0].fd);
  close(ch->in_fd);
  ch->out[0].fd = ch->in_fd = -1;
  try_second(ch, error);
}
