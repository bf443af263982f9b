#define _GNU_SOURCE
#include "dialer.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "clock.h"
#include "dial-request.h"
#include "process.h"

enum { CANNOT_RETURN = 70 };
enum { REQUESTS = 0, ANSWERS = 3 };
enum { DIALS_MAX = 4096, PER_DIAL = 3 };

// connecting ──connected, all addresses failed, out of time, process ended──▶ decided ──answer taken──▶ forgotten
static struct dial {
  struct dial_request request;
  int64_t deadline_us;
  int pidfd, namespace, socket;  // -1: none
  uint8_t next;                  // address to try when this one fails
  bool decided;
  int error;  // of the first address, then of the whole
} dials[DIALS_MAX];
static int count;
static int own_namespace = -1;
static struct stat own;

static void close_if_open(int *fd) {
  if (*fd >= 0) close(*fd);
  *fd = -1;
}

static void decide(struct dial *d, int error) {
  if (error) close_if_open(&d->socket);
  close_if_open(&d->namespace);
  d->error = error;
  d->decided = true;
}

// A pidfd becomes readable when its process has ended, also while that is not yet waited for.
static bool has_ended(int pidfd) {
  struct pollfd process = {.fd = pidfd, .events = POLLIN};
  return poll(&process, 1, 0) != 0;
}

// Its slot is not given to another sandbox before the process is dead. One that lives after the namespace was opened was the one it was opened from.
static int open_namespace(struct dial *d) {
  char path[48];
  struct stat s;
  d->pidfd = process_open_pidfd(d->request.pid, d->request.start);
  if (d->pidfd < 0) return errno;
  snprintf(path, sizeof path, "/proc/%u/ns/net", d->request.pid);
  d->namespace = open(path, O_RDONLY | O_CLOEXEC);
  if (d->namespace < 0) return errno == ENOENT ? ESRCH : errno;
  if (has_ended(d->pidfd)) return ESRCH;
  if (fstat(d->namespace, &s) != 0) return errno;
  // Never the machine's own network.
  return s.st_dev == own.st_dev && s.st_ino == own.st_ino ? EPERM : 0;
}

static int make_socket(int namespace, int family) {
  if (setns(namespace, CLONE_NEWNET) != 0) return -1;
  int fd = socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), error = errno;
  // In there a socket of nobody's would be a tenant's, and its namespace would live as long as this process.
  if (setns(own_namespace, CLONE_NEWNET) != 0) _exit(CANNOT_RETURN);
  errno = error;
  return fd;
}

static int start_connect(struct dial *d, const uint8_t address[16]) {
  static const uint8_t mapped[12] = {[10] = 0xff, [11] = 0xff};
  bool v4 = memcmp(address, mapped, sizeof mapped) == 0;
  d->socket = make_socket(d->namespace, v4 ? AF_INET : AF_INET6);
  if (d->socket < 0) return errno;
  int on = 1;
  setsockopt(d->socket, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  struct sockaddr_in in = {.sin_family = AF_INET, .sin_port = htons(d->request.port)};
  struct sockaddr_in6 in6 = {.sin6_family = AF_INET6, .sin6_port = htons(d->request.port)};
  memcpy(&in.sin_addr, address + sizeof mapped, 4);
  memcpy(&in6.sin6_addr, address, 16);
  int failed = v4 ? connect(d->socket, (struct sockaddr *)&in, sizeof in) : connect(d->socket, (struct sockaddr *)&in6, sizeof in6);
  return failed ? errno : 0;
}

// Connected as far as the socket goes: it was with this sandbox if that lives still.
static void connected(struct dial *d) { decide(d, has_ended(d->pidfd) ? ESRCH : 0); }

static void try_addresses(struct dial *d) {
  while (d->next < d->request.count) {
    int error = start_connect(d, d->request.addresses[d->next++]);
    if (error == EINPROGRESS) return;
    if (!error) return connected(d);
    if (d->next == 1) d->error = error;
    close_if_open(&d->socket);
  }
  decide(d, d->error);
}

static void attempt_ended(struct dial *d) {
  int error = 0;
  socklen_t length = sizeof error;
  if (getsockopt(d->socket, SOL_SOCKET, SO_ERROR, &error, &length) != 0) error = errno;
  if (!error) return connected(d);
  if (d->next == 1) d->error = error;
  close_if_open(&d->socket);
  try_addresses(d);
}

static void start(const struct dial_request *request) {
  struct dial *d = &dials[count++];
  *d = (struct dial){.request = *request, .deadline_us = (int64_t)clock_us() + (int64_t)request->timeout_ms * 1000, .pidfd = -1, .namespace = -1, .socket = -1};
  int error = open_namespace(d);
  if (error) decide(d, error);
  else try_addresses(d);
}

// True when it went, whole: so few bytes do, or none.
static bool answer(struct dial *d) {
  char line[128];
  const char *form = d->error ? "{\"id\":%u,\"errno\":%d}\n" : "{\"cmd\":\"NODE_HANDLE\",\"type\":\"net.Socket\",\"msg\":{\"id\":%u,\"errno\":%d}}\n";
  struct iovec bytes = {line, (size_t)snprintf(line, sizeof line, form, d->request.id, d->error)};
  union {
    char space[CMSG_SPACE(sizeof(int))];
    struct cmsghdr align;
  } control;
  struct msghdr message = {.msg_iov = &bytes, .msg_iovlen = 1};
  if (!d->error) {
    memset(&control, 0, sizeof control);
    message.msg_control = control.space;
    message.msg_controllen = sizeof control.space;
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    *header = (struct cmsghdr){.cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS, .cmsg_len = CMSG_LEN(sizeof(int))};
    memcpy(CMSG_DATA(header), &d->socket, sizeof(int));
  }
  ssize_t sent;
  do sent = sendmsg(ANSWERS, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
  while (sent < 0 && errno == EINTR);
  if (sent < 0 && errno == EAGAIN) return false;
  if (sent != (ssize_t)bytes.iov_len) _exit(0);
  return true;
}

static void forget(int i) {
  close_if_open(&dials[i].socket);
  close_if_open(&dials[i].namespace);
  close_if_open(&dials[i].pidfd);
  dials[i] = dials[--count];
}

// Answers what is decided, as far as the daemon takes it. Oldest last: the last takes the place of one that is gone.
static void answer_decided(void) {
  for (int i = count - 1; i >= 0; i--) {
    if (!dials[i].decided) continue;
    if (!answer(&dials[i])) return;
    forget(i);
  }
}

static bool receive(void) {
  static uint8_t buffer[64 * DIAL_REQUEST_BYTES];
  static size_t held;
  size_t places = (size_t)(DIALS_MAX - count), room = sizeof buffer - held, most = places * DIAL_REQUEST_BYTES - held;
  ssize_t length = read(REQUESTS, buffer + held, room < most ? room : most);
  if (length < 0 && (errno == EINTR || errno == EAGAIN)) return true;
  if (length <= 0) return false;
  held += (size_t)length;
  size_t at = 0;
  for (; held - at >= DIAL_REQUEST_BYTES; at += DIAL_REQUEST_BYTES) {
    struct dial_request request;
    if (!dial_request_decode(buffer + at, &request)) {
      dprintf(2, "dialer: a request that is none; giving up\n");
      return false;
    }
    start(&request);
  }
  held -= at;
  memmove(buffer, buffer + at, held);
  return true;
}

static bool drop_acknowledgements(void) {
  char dropped[4096];
  ssize_t length = recv(ANSWERS, dropped, sizeof dropped, MSG_DONTWAIT);
  return length > 0 || (length < 0 && (errno == EINTR || errno == EAGAIN));
}

// Entering namespaces takes CAP_SYS_ADMIN, finding those of other users' processes CAP_SYS_PTRACE; nothing else is needed.
static int drop_privileges(void) {
  struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
  const uint32_t kept = 1U << CAP_SYS_ADMIN | 1U << CAP_SYS_PTRACE;
  struct __user_cap_data_struct sets[2] = {{.effective = kept, .permitted = kept}};
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) return -1;
  return (int)syscall(SYS_capset, &header, sets);
}

static int prepare(void) {
  struct rlimit files;
  signal(SIGINT, SIG_IGN);
  signal(SIGTERM, SIG_IGN);
  signal(SIGHUP, SIG_IGN);
  own_namespace = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
  if (own_namespace < 0 || fstat(own_namespace, &own) != 0) return -1;
  if (getrlimit(RLIMIT_NOFILE, &files) != 0) return -1;
  rlim_t wanted = DIALS_MAX * PER_DIAL + 16;
  files.rlim_cur = files.rlim_max < wanted ? files.rlim_max : wanted;
  if (setrlimit(RLIMIT_NOFILE, &files) != 0) return -1;
  return drop_privileges();
}

static int next_timeout_ms(void) {
  int64_t next = -1, now = (int64_t)clock_us();
  for (int i = 0; i < count; i++) {
    if (dials[i].decided) continue;
    int64_t left = dials[i].deadline_us > now ? dials[i].deadline_us - now : 0;
    if (next < 0 || left < next) next = left;
  }
  // Rounded up: not awake for nothing just before.
  return next < 0 ? -1 : next > 60000000 ? 60000 : (int)((next + 999) / 1000);
}

int dialer_run(void) {
  static struct pollfd fds[2 + 2 * DIALS_MAX];
  if (prepare() != 0) {
    dprintf(2, "dialer: %s\n", strerror(errno));
    return 1;
  }
  for (;;) {
    bool waiting = false;
    int polled = count;
    for (int i = 0; i < polled; i++) {
      const struct dial *d = &dials[i];
      waiting |= d->decided;
      fds[2 + 2 * i] = (struct pollfd){.fd = d->decided ? -1 : d->socket, .events = POLLOUT};
      fds[3 + 2 * i] = (struct pollfd){.fd = d->decided ? -1 : d->pidfd, .events = POLLIN};
    }
    fds[0] = (struct pollfd){.fd = count < DIALS_MAX ? REQUESTS : -1, .events = POLLIN};
    fds[1] = (struct pollfd){.fd = ANSWERS, .events = (short)(POLLIN | (waiting ? POLLOUT : 0))};
    if (poll(fds, (nfds_t)(2 + 2 * polled), next_timeout_ms()) < 0) continue;
    int64_t now = (int64_t)clock_us();
    for (int i = 0; i < polled; i++) {
      struct dial *d = &dials[i];
      if (d->decided) continue;
      if (fds[3 + 2 * i].revents) decide(d, ESRCH);
      else if (fds[2 + 2 * i].revents) attempt_ended(d);
      else if (now >= d->deadline_us) decide(d, ETIMEDOUT);
    }
    if (fds[1].revents & (POLLIN | POLLHUP | POLLERR) && !drop_acknowledgements()) return 0;
    if (fds[0].revents && !receive()) return 0;
    answer_decided();
  }
}
