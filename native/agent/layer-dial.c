#define _GNU_SOURCE
#include "layer-dial.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../layer/layer.h"

enum { WORKERS_MAX = 8 };

static pid_t workers[WORKERS_MAX];  // 0: free

static int open_layer(void) {
  int disk = open("/ws", O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
  if (disk < 0) return -1;
  int layer = openat(disk, "u", O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC), error = errno;
  close(disk);
  errno = error;
  return layer;
}

static _Noreturn void become(int connection, int layer) {
  // The agent is spared when memory runs out; this is not worth that.
  int score = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
  if (score >= 0 && write(score, "0", 1) == 1) close(score);
  layer_worker(connection, layer);
}

// 0 or an errno.
static int start(struct channel *ch, pid_t *worker) {
  int ends[2], layer = open_layer();
  if (layer < 0) return errno;
  int error = socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) == 0 ? 0 : errno;
  if (!error) {
    int sending = fcntl(ends[0], F_DUPFD_CLOEXEC, 3);
    *worker = sending < 0 || fcntl(ends[0], F_SETFL, O_NONBLOCK) != 0 ? -1 : fork();
    if (*worker == 0) become(ends[1], layer);
    error = *worker < 0 ? errno : 0;
    close(ends[1]);
    if (error) {
      close(ends[0]);
      if (sending >= 0) close(sending);
    } else {
      ch->out[0].fd = ends[0];
      ch->in_fd = sending;
      ch->state = RUNNING;
    }
  }
  close(layer);
  return error;
}

void layer_dial_open(struct channel *ch) {
  ch->out[1].ended = true;
  pid_t *worker = workers;
  while (worker < workers + WORKERS_MAX && *worker) worker++;
  int error = worker == workers + WORKERS_MAX ? EAGAIN : start(ch, worker);
  if (!error) return;
  if (worker < workers + WORKERS_MAX) *worker = 0;
  channel_fail(ch, error, "layer worker");
}

void layer_dial_reaped(pid_t pid) {
  for (int i = 0; i < WORKERS_MAX; i++) {
    if (workers[i] == pid) workers[i] = 0;
  }
}

void layer_dial_end_all(void) {
  for (int i = 0; i < WORKERS_MAX; i++) {
    if (!workers[i]) continue;
    kill(workers[i], SIGKILL);
    waitpid(workers[i], NULL, 0);
    workers[i] = 0;
  }
}
