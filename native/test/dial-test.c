// The dialer's request reader, and the dialer itself against a server in a network namespace: `dial-test <mounter>`. The second part needs root.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../mounter/dial-request.h"
#include "check.h"

const char *check_what = "";

enum { PORT = 7007, FULL_PORT = 7008, NO_PORT = 7009 };

static void put(uint8_t *at, uint64_t value, int bytes) {
  for (int i = 0; i < bytes; i++, value >>= 8) at[i] = (uint8_t)value;
}

static void make_request(uint8_t *bytes, uint32_t id, pid_t pid, uint64_t start, uint32_t timeout_ms, uint16_t port) {
  memset(bytes, 0, DIAL_REQUEST_BYTES);
  put(bytes, id, 4);
  put(bytes + 4, (uint32_t)pid, 4);
  put(bytes + 8, start, 8);
  put(bytes + 16, timeout_ms, 4);
  put(bytes + 20, port, 2);
  bytes[22] = 2;
  memcpy(bytes + 24, "\0\0\0\0\0\0\0\0\0\0\377\377\177\0\0\1", 16);
  bytes[24 + 31] = 1;
}

static void reads_requests(void) {
  uint8_t *bytes = malloc(DIAL_REQUEST_BYTES);
  struct dial_request request;
  make_request(bytes, 7, 4242, 0x1122334455667788, 10000, 8080);
  CHECK(dial_request_decode(bytes, &request));
  CHECK(request.id == 7 && request.pid == 4242 && request.start == 0x1122334455667788 && request.timeout_ms == 10000 && request.port == 8080);
  CHECK(request.count == 2 && request.addresses[0][12] == 127 && request.addresses[1][15] == 1);
  static const struct {
    int at;
    uint8_t value[4];
    int bytes;
  } wrong[] = {{4, {1}, 4}, {4, {0xff, 0xff, 0xff, 0xff}, 4}, {16, {0}, 4}, {20, {0}, 2}, {22, {0}, 1}, {22, {1}, 1}, {22, {3}, 1}, {22, {4}, 1}, {23, {1}, 1}};
  for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
    make_request(bytes, 7, 4242, 1, 10000, 8080);
    memcpy(bytes + wrong[i].at, wrong[i].value, (size_t)wrong[i].bytes);
    CHECK(!dial_request_decode(bytes, &request));
  }
  free(bytes);
}

static int listen_at(uint16_t port, int backlog) {
  int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  struct sockaddr_in in = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  CHECK(fd >= 0 && bind(fd, (struct sockaddr *)&in, sizeof in) == 0 && listen(fd, backlog) == 0);
  return fd;
}

// A server that sends everything back, in a network namespace of its own.
static pid_t start_server(void) {
  int ready[2];
  CHECK(pipe2(ready, O_CLOEXEC) == 0);
  pid_t child = fork();
  CHECK(child >= 0);
  if (child == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    CHECK(unshare(CLONE_NEWNET) == 0);
    int control = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    struct ifreq lo = {.ifr_name = "lo", .ifr_flags = IFF_UP};
    CHECK(ioctl(control, SIOCSIFFLAGS, &lo) == 0);
    int listener = listen_at(PORT, 64);
    listen_at(FULL_PORT, 0);
    CHECK(write(ready[1], "r", 1) == 1);
    for (;;) {
      char bytes[256];
      int peer = accept(listener, NULL, NULL);
      ssize_t length = read(peer, bytes, sizeof bytes);
      if (length > 0) CHECK(write(peer, bytes, (size_t)length) == length);
      close(peer);
    }
  }
  char byte;
  CHECK(read(ready[0], &byte, 1) == 1);
  close(ready[0]);
  close(ready[1]);
  return child;
}

static uint64_t start_of(pid_t pid) {
  char path[64], text[1024];
  snprintf(path, sizeof path, "/proc/%d/stat", pid);
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  ssize_t length = read(fd, text, sizeof text - 1);
  close(fd);
  CHECK(length > 0);
  text[length] = 0;
  char *field = strrchr(text, ')') + 1;
  for (int number = 2; number < 22; number++) field = strchr(field, ' ') + 1;
  return strtoull(field, NULL, 10);
}

static struct {
  pid_t pid;
  int requests, answers;
} dialer;

static void start_dialer(const char *mounter) {
  int requests[2], answers[2];
  CHECK(pipe2(requests, O_CLOEXEC) == 0 && socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, answers) == 0);
  dialer.pid = fork();
  if (dialer.pid == 0) {
    int far = fcntl(answers[1], F_DUPFD_CLOEXEC, 10);
    CHECK(dup2(requests[0], 0) == 0 && dup2(far, 3) == 3);
    execl(mounter, mounter, "dial", NULL);
    CHECK(false);
  }
  close(requests[0]);
  close(answers[1]);
  dialer.requests = requests[1];
  dialer.answers = answers[0];
}

static void ask(uint32_t id, pid_t pid, uint64_t start, uint32_t timeout_ms, uint16_t port) {
  uint8_t bytes[DIAL_REQUEST_BYTES];
  make_request(bytes, id, pid, start, timeout_ms, port);
  CHECK(write(dialer.requests, bytes, sizeof bytes) == sizeof bytes);
}

// One answer, whatever it is: a descriptor comes alone with its line.
static int next_answer(unsigned *id, int *error) {
  static char held[4096];
  static size_t length;
  int fd = -1;
  while (!memchr(held, '\n', length)) {
    union {
      char space[CMSG_SPACE(sizeof(int))];
      struct cmsghdr align;
    } control;
    struct iovec bytes = {held + length, 1};
    struct msghdr message = {.msg_iov = &bytes, .msg_iovlen = 1, .msg_control = control.space, .msg_controllen = sizeof control.space};
    CHECK(recvmsg(dialer.answers, &message, MSG_CMSG_CLOEXEC) == 1);
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    if (header) memcpy(&fd, CMSG_DATA(header), sizeof fd);
    length++;
  }
  held[length - 1] = 0;
  bool handle = sscanf(held, "{\"cmd\":\"NODE_HANDLE\",\"type\":\"net.Socket\",\"msg\":{\"id\":%u,\"errno\":%d}}", id, error) == 2;
  CHECK(handle || sscanf(held, "{\"id\":%u,\"errno\":%d}", id, error) == 2);
  CHECK(handle == (fd >= 0));
  length = 0;
  return fd;
}

static void expect_error(uint32_t id, int wanted) {
  unsigned got;
  int error;
  CHECK(next_answer(&got, &error) == -1 && got == id && error == wanted);
}

static void connects(pid_t server, uint64_t start) {
  unsigned id;
  int error, on = 0;
  socklen_t length = sizeof on;
  char bytes[8];
  ask(1, server, start, 10000, PORT);
  int fd = next_answer(&id, &error);
  CHECK(id == 1 && error == 0);
  CHECK(getsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, &length) == 0 && on);
  CHECK(write(fd, "hello", 5) == 5);
  struct pollfd echoed = {.fd = fd, .events = POLLIN};
  CHECK(poll(&echoed, 1, 10000) == 1 && read(fd, bytes, sizeof bytes) == 5 && memcmp(bytes, "hello", 5) == 0);
  close(fd);
}

static void many_at_once(pid_t server, uint64_t start) {
  bool seen[200] = {0};
  for (uint32_t i = 0; i < 200; i++) ask(i, server, start, 10000, i % 2 ? PORT : NO_PORT);
  for (int i = 0; i < 200; i++) {
    unsigned id;
    int error, fd = next_answer(&id, &error);
    CHECK(id < 200 && !seen[id] && error == (id % 2 ? 0 : ECONNREFUSED));
    seen[id] = true;
    if (fd >= 0) close(fd);
  }
}

// What nobody accepts holds up nothing, ends by its time, and at the end of the process it was for.
static void gives_up(pid_t server, uint64_t start) {
  unsigned id;
  int error;
  ask(1, server, start, 60000, FULL_PORT);
  int first = next_answer(&id, &error);
  CHECK(first >= 0);
  ask(2, server, start, 200, FULL_PORT);
  ask(3, server, start, 60000, FULL_PORT);
  connects(server, start);
  expect_error(2, ETIMEDOUT);
  CHECK(kill(server, SIGKILL) == 0);
  expect_error(3, ESRCH);
  ask(4, server, start, 1000, PORT);
  expect_error(4, ESRCH);
  close(first);
  CHECK(waitpid(server, NULL, 0) == server);
}

static int exit_code(void) {
  int status;
  CHECK(waitpid(dialer.pid, &status, 0) == dialer.pid && WIFEXITED(status));
  return WEXITSTATUS(status);
}

int main(int argc, char **argv) {
  check_what = "reads requests";
  reads_requests();
  if (argc != 2 || geteuid() != 0) {
    printf("dial-test: the rest needs root and a mounter\n");
    return 0;
  }
  signal(SIGPIPE, SIG_IGN);
  pid_t server = start_server();
  uint64_t start = start_of(server);
  start_dialer(argv[1]);
  check_what = "connects";
  connects(server, start);
  check_what = "refuses";
  ask(9, server, start, 10000, NO_PORT);
  expect_error(9, ECONNREFUSED);
  ask(10, server, start + 1, 10000, PORT);
  expect_error(10, ESRCH);
  ask(11, getpid(), start_of(getpid()), 10000, PORT);
  expect_error(11, EPERM);
  check_what = "many at once";
  many_at_once(server, start);
  check_what = "gives up";
  gives_up(server, start);
  check_what = "ends with its daemon";
  close(dialer.requests);
  CHECK(exit_code() == 0);
  close(dialer.answers);
  check_what = "ends on what is no request";
  start_dialer(argv[1]);
  CHECK(write(dialer.requests, (uint8_t[DIAL_REQUEST_BYTES]){0}, DIAL_REQUEST_BYTES) == DIAL_REQUEST_BYTES);
  CHECK(exit_code() == 0);
  printf("dial-test: good\n");
  return 0;
}
