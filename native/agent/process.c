#define _GNU_SOURCE
#include "process.h"

#include <dirent.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "channel.h"
#include "init-world.h"
#include "layer-dial.h"
#include "worker.h"

int process_watch(void) {
  // Nothing a signal could do to the first process is wanted, and blocked it is enough that children unblock. Ignored ones would be inherited, also
  // the two the C library keeps for itself and does not let signal(3) touch.
  static const unsigned long to_default[4];
  for (int number = 1; number < NSIG; number++) syscall(SYS_rt_sigaction, number, to_default, NULL, 8);
  sigset_t all, child;
  sigfillset(&all);
  sigprocmask(SIG_SETMASK, &all, NULL);
  sigemptyset(&child);
  sigaddset(&child, SIGCHLD);
  return signalfd(-1, &child, SFD_CLOEXEC | SFD_NONBLOCK);
}

void process_reap(int watch) {
  struct signalfd_siginfo ignored;
  while (read(watch, &ignored, sizeof ignored) > 0) continue;
  int status;
  struct rusage usage;
  pid_t pid;
  while ((pid = wait4(-1, &status, WNOHANG, &usage)) > 0) {
    // First: it lets go of the console, whose end is then seen.
    init_world_reaped(pid);
    if (channels_reaped((uint32_t)pid, status, &usage)) continue;
    layer_dial_reaped(pid);
    worker_reaped(pid, status);
  }
}

void process_signal_all(int signal) {
  if (getpid() == 1) kill(-1, signal);
}

uint32_t process_count(void) {
  uint32_t count = 0;
  DIR *proc = opendir("/proc");
  if (!proc) return 0;
  for (const struct dirent *entry; (entry = readdir(proc));) count += entry->d_name[0] >= '1' && entry->d_name[0] <= '9';
  closedir(proc);
  return count;
}
