// The server in the sandbox: one process, epoll, HTTP/1.1 with keep-alive and pipelining. `/` answers 1 KiB, `/big` 100 MB.
// `server <port>`; says "ready" once it listens.
#define _GNU_SOURCE
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { SMALL = 1024, BIG = 100000000, PIECE = 1 << 18, HELD = 16384, FILES = 4096 };

static struct connection {
  char held[HELD];
  size_t length;
  size_t owed;  // of the body that is being sent
} *connections[FILES];
static char small[SMALL + 256], zeros[PIECE];
static size_t small_length;

static void forget(int fd) {
  free(connections[fd]);
  connections[fd] = NULL;
  close(fd);
}

// False when the connection is over.
static int send_owed(int fd, struct connection *c) {
  while (c->owed > 0) {
    ssize_t sent = send(fd, zeros, c->owed < PIECE ? c->owed : PIECE, MSG_NOSIGNAL);
    if (sent < 0) return 1;
    c->owed -= (size_t)sent;
  }
  return 1;
}

static int answer(int fd, struct connection *c) {
  char *end;
  while (c->owed == 0 && (end = memmem(c->held, c->length, "\r\n\r\n", 4))) {
    if (memcmp(c->held, "GET /big ", 9) == 0) {
      char head[128];
      int length = snprintf(head, sizeof head, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\nContent-Type: application/octet-stream\r\n\r\n", BIG);
      if (send(fd, head, (size_t)length, MSG_NOSIGNAL) != length) return 0;
      c->owed = BIG;
      send_owed(fd, c);
    } else if (send(fd, small, small_length, MSG_NOSIGNAL) != (ssize_t)small_length) return 0;
    size_t used = (size_t)(end + 4 - c->held);
    c->length -= used;
    memmove(c->held, c->held + used, c->length);
  }
  return 1;
}

static int serve(int fd, uint32_t events) {
  struct connection *c = connections[fd];
  if (events & EPOLLOUT && c->owed > 0) send_owed(fd, c);
  if (events & EPOLLIN) {
    ssize_t length = recv(fd, c->held + c->length, HELD - c->length, 0);
    if (length <= 0) return 0;
    c->length += (size_t)length;
  } else if (events & (EPOLLHUP | EPOLLERR)) return 0;
  return answer(fd, c);
}

int main(int argc, char **argv) {
  signal(SIGPIPE, SIG_IGN);
  small_length = (size_t)snprintf(small, sizeof small, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\nContent-Type: text/plain\r\n\r\n", SMALL);
  memset(small + small_length, 'x', SMALL);
  small_length += SMALL;
  int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), events = epoll_create1(0), on = 1;
  struct sockaddr_in in = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(argc > 1 ? argv[1] : "8080"))};
  setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  if (bind(listener, (struct sockaddr *)&in, sizeof in) != 0 || listen(listener, 1024) != 0) return perror("listen"), 1;
  struct epoll_event event = {.events = EPOLLIN, .data.fd = listener}, got[64];
  epoll_ctl(events, EPOLL_CTL_ADD, listener, &event);
  if (write(1, "ready\n", 6) != 6) return 1;
  for (;;) {
    int count = epoll_wait(events, got, 64, -1);
    for (int i = 0; i < count; i++) {
      int fd = got[i].data.fd;
      if (fd != listener) {
        if (!serve(fd, got[i].events)) forget(fd);
        continue;
      }
      for (int peer; (peer = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0;) {
        if (peer >= FILES || !(connections[peer] = calloc(1, sizeof(struct connection)))) {
          close(peer);
          continue;
        }
        setsockopt(peer, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        event = (struct epoll_event){.events = EPOLLIN | EPOLLOUT | EPOLLET, .data.fd = peer};
        epoll_ctl(events, EPOLL_CTL_ADD, peer, &event);
      }
    }
  }
}
