#define _GNU_SOURCE
#include "run.h"

#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static int daemon_mounts = -1;

int run_daemon_mounts(void) { return daemon_mounts; }

struct outcome run_prepare(void) {
  daemon_mounts = open("/proc/self/ns/mnt", O_RDONLY | O_CLOEXEC);
  return daemon_mounts < 0 ? failed("open the mount namespace") : done(0);
}

// An empty pipe rather than /dev/null: OCI runtimes change the owner of what a container has as its standard input.
static int empty_input(void) {
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) return -1;
  close(ends[1]);
  return ends[0];
}

static _Noreturn void become(const struct request *request) {
  int log = open(request->path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0600), input = empty_input();
  if (log < 0 || input < 0 || setns(daemon_mounts, CLONE_NEWNS) != 0) _exit(127);
  if (dup2(input, 0) < 0 || dup2(log, 1) < 0 || dup2(log, 2) < 0) _exit(127);
  const int ignored[] = {SIGPIPE, SIGINT, SIGTERM, SIGHUP};
  for (size_t i = 0; i < sizeof ignored / sizeof *ignored; i++) signal(ignored[i], SIG_DFL);
  execvp(request->arguments[0], request->arguments);
  dprintf(2, "%s cannot be started\n", request->arguments[0]);
  _exit(127);
}

struct outcome run_start(const struct request *request, pid_t *child, int *pidfd) {
  *child = fork();
  if (*child < 0) return failed("fork");
  if (*child == 0) become(request);
  *pidfd = (int)syscall(SYS_pidfd_open, *child, 0);
  if (*pidfd >= 0) return done(0);
  struct outcome outcome = failed("pidfd_open");
  kill(*child, SIGKILL);
  waitpid(*child, NULL, 0);
  return outcome;
}

struct outcome run_finish(pid_t child) {
  int status;
  if (waitpid(child, &status, 0) != child) return failed("waitpid");
  return done(WIFEXITED(status) ? (uint64_t)WEXITSTATUS(status) : 128 + (uint64_t)WTERMSIG(status));
}
