#define _GNU_SOURCE
#include "worker.h"

#include <errno.h>
#include <sys/prctl.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "codec.h"
#include "link.h"

enum { WORKERS_MAX = 16 };

static struct worker {
  pid_t pid;  // 0: free
  uint32_t request;
  unsigned generation;
  void (*done)(int);
} workers[WORKERS_MAX];

void worker_start(uint32_t request, int (*work)(void *), void *argument, void (*done)(int), struct bytes *out) {
  struct worker *worker = workers;
  while (worker < workers + WORKERS_MAX && worker->pid) worker++;
  if (worker == workers + WORKERS_MAX) return put_reply_head(out, request, EAGAIN, 0);
  pid_t pid = fork();
  if (pid == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    _exit(work(argument));
  }
  if (pid < 0) return put_reply_head(out, request, errno, 0);
  *worker = (struct worker){pid, request, link_generation(), done};
}

void worker_reaped(pid_t pid, int status) {
  for (struct worker *worker = workers; worker < workers + WORKERS_MAX; worker++) {
    if (worker->pid != pid) continue;
    int error = WIFEXITED(status) ? WEXITSTATUS(status) : EINTR;
    if (worker->done) worker->done(error);
    struct bytes *out = link_out();
    if (out && worker->generation == link_generation()) put_reply_head(out, worker->request, error, 0);
    *worker = (struct worker){0};
  }
}
