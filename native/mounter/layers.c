#define _GNU_SOURCE
#include "layers.h"

#include <errno.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../layer/layer.h"

enum { BACKLOG = 64, SEND_BYTES = 1 << 20, END_MS = 30000 };

static int listener = -1;
static struct {
  int pidfd, connection;
  pid_t pid;
  bool ending;  // was killed
} workers[LAYER_WORKERS_MAX];
static int count;

int layers_listen(const char *path) {
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  if (strlen(path) >= sizeof address.sun_path) return ENAMETOOLONG;
  strcpy(address.sun_path, path);
  if (unlink(path) != 0 && errno != ENOENT) return errno;
  listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (listener < 0) return errno;
  // bind(2) makes the file with the umask's mode: it is never open to others, not even for a moment.
  mode_t before = umask(0177);
  int error = bind(listener, (struct sockaddr *)&address, sizeof address) == 0 && listen(listener, BACKLOG) == 0 ? 0 : errno;
  umask(before);
  return error;
}

int layers_poll(struct pollfd *fds) {
  for (int i = 0; i < count; i++) fds[i] = (struct pollfd){.fd = workers[i].pidfd, .events = POLLIN};
  if (listener < 0) return 0;
  // With all places taken, who comes next waits in the backlog.
  fds[count] = (struct pollfd){.fd = count < LAYER_WORKERS_MAX ? listener : -1, .events = POLLIN};
  return count + 1;
}

static void accept_one(void) {
  int connection = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
  if (connection < 0) return;
  int bytes = SEND_BYTES;
  setsockopt(connection, SOL_SOCKET, SO_SNDBUF, &bytes, sizeof bytes);
  pid_t child = fork();
  if (child == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    layer_worker(connection, -1);
  }
  if (child < 0) {
    close(connection);
    return;
  }
  int pidfd = (int)syscall(SYS_pidfd_open, child, 0);
  if (pidfd < 0) {
    kill(child, SIGKILL);
    waitpid(child, NULL, 0);
    close(connection);
    return;
  }
  workers[count].ending = false;
  workers[count].pid = child;
  workers[count].connection = connection;
  workers[count++].pidfd = pidfd;
}

// The last takes its place.
static void forget(int i) {
  waitpid(workers[i].pid, NULL, 0);
  // Not only closed: another child of the mounter may have it, too.
  shutdown(workers[i].connection, SHUT_RDWR);
  close(workers[i].connection);
  close(workers[i].pidfd);
  workers[i] = workers[--count];
}

void layers_end_closed(void) {
  for (int i = 0; i < count; i++) {
    struct pollfd connection = {.fd = workers[i].connection, .events = POLLRDHUP};
    if (workers[i].ending || poll(&connection, 1, 0) != 1) continue;
    // Not waited for here: one that has a large file written out ends when that is done.
    kill(workers[i].pid, SIGKILL);
    workers[i].ending = true;
  }
}

void layers_await_ending(void) {
  for (int i = 0; i < count; i++) {
    struct pollfd end = {.fd = workers[i].pidfd, .events = POLLIN};
    if (workers[i].ending) poll(&end, 1, END_MS);
  }
}

void layers_serve(const struct pollfd *fds, int slots) {
  if (slots == 0) return;
  for (int i = slots - 2; i >= 0; i--) {
    if (fds[i].revents) forget(i);
  }
  if (fds[slots - 1].revents) accept_one();
}
