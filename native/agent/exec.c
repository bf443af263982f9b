#define _GNU_SOURCE
#include "exec.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/close_range.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "files.h"
#include "init-world.h"
#include "pty.h"
#include "root.h"

#ifdef __SANITIZE_ADDRESS__
// The sanitizer keeps notes about the stack it runs on; a child in the same memory would spoil them.
enum { SPAWN_FLAGS = CLONE_VFORK | SIGCHLD };
#else
enum { SPAWN_FLAGS = CLONE_VM | CLONE_VFORK | SIGCHLD };
#endif
#define NOT_INSTRUMENTED __attribute__((no_sanitize("address", "undefined")))

enum { STACK_BYTES = 64 << 10 };

// What parent and child share. The child runs on `stack` in the agent's own memory (vfork), so it calls nothing that allocates or locks.
struct spawn {
  const struct exec_request *request;
  const char *path;
  int fds[3];
  bool pty, init, protected;
  char console[32];
  int error;
  const char *step;
  char file[4096];
  uint8_t stack[STACK_BYTES] __attribute__((aligned(16)));
};

static struct spawn *spawn;
static int null_fd = -1;
static bool oom_protected;

void exec_prepare(void) {
  null_fd = open("/dev/null", O_RDWR | O_CLOEXEC);
  spawn = mmap(NULL, sizeof *spawn, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (spawn == MAP_FAILED) spawn = NULL;
  char score[16] = "";
  int fd = open("/proc/self/oom_score_adj", O_RDONLY | O_CLOEXEC);
  if (fd < 0) return;
  ssize_t length = read(fd, score, sizeof score - 1);
  oom_protected = length > 0 && atoi(score) != 0;
  close(fd);
}

static void script_path(char path[48], uint32_t channel) { snprintf(path, 48, "/run/mags/script-%u", channel); }

static int write_script(uint32_t channel, struct blob script) {
  char path[48];
  script_path(path, channel);
  int error = root_enter();
  if (error) return error;
  mkdir("/run", 0755);
  mkdir("/run/mags", 0755);
  unlink(path);
  // A new file, never one that somebody in the sandbox put or linked there.
  int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0700);
  if (fd < 0) error = errno;
  else error = files_write_all(fd, script.bytes, script.length);
  if (fd >= 0 && close(fd) != 0 && !error) error = errno;
  if (fd >= 0 && error) unlink(path);
  root_leave();
  return error;
}

void exec_remove_script(uint32_t channel) {
  char path[48];
  script_path(path, channel);
  if (root_enter() == 0) unlink(path);
  root_leave();
}

NOT_INSTRUMENTED static int give_up(struct spawn *s, const char *step) {
  s->error = errno;
  s->step = step;
  _exit(127);
}

// execvp, without its fallback to a shell for files of no known format.
NOT_INSTRUMENTED static int exec_in_path(struct spawn *s) {
  char **argv = s->request->argv, **env = s->request->env;
  const char *name = argv[0];
  for (const char *c = name; *c; c++) {
    if (*c == '/') return execve(name, argv, env);
  }
  int denied = 0;
  for (const char *from = s->path; *name;) {
    size_t used = 0;
    bool fits = true;
    for (; *from && *from != ':'; from++) {
      if (used < sizeof s->file - 2) s->file[used++] = *from;
      else fits = false;
    }
    if (used == 0) s->file[used++] = '.';
    s->file[used++] = '/';
    for (const char *c = name; *c; c++) {
      if (used < sizeof s->file - 1) s->file[used++] = *c;
      else fits = false;
    }
    s->file[used] = 0;
    if (fits) {
      execve(s->file, argv, env);
      if (errno == EACCES) denied = EACCES;
      else if (errno != ENOENT && errno != ENOTDIR && errno != ENAMETOOLONG && errno != ELOOP) return -1;
    }
    if (!*from++) break;
  }
  errno = denied ? denied : ENOENT;
  return -1;
}

NOT_INSTRUMENTED static int child(void *argument) {
  struct spawn *s = argument;
  const struct exec_request *request = s->request;
  if (setsid() < 0) return give_up(s, "setsid");
  // All of the agent's descriptors are above 2, so none is overwritten before it was used.
  for (int fd = 0; fd < 3; fd++) {
    if (dup2(s->fds[fd], fd) < 0) return give_up(s, "dup2");
  }
  // An init has no controlling terminal: it gives them to others.
  if (s->pty && !s->init && ioctl(0, TIOCSCTTY, 0) < 0) return give_up(s, "controlling terminal");
  syscall(SYS_close_range, 3, ~0U, CLOSE_RANGE_CLOEXEC);
  if (s->protected) {
    int fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
    if (fd < 0 || write(fd, "0", 1) != 1) return give_up(s, "oom_score_adj");
    close(fd);
  }
  umask(022);
  errno = s->init ? init_world_compose(s->console) : root_enter_for_good();
  if (errno) return give_up(s, "root");
  if (chdir(*request->cwd ? request->cwd : "/") < 0) return give_up(s, request->cwd);
  for (int i = 0; i < request->limit_count; i++) {
    const struct limit *limit = &request->limits[i];
    struct rlimit value = {limit->soft, limit->hard};
    if (syscall(SYS_prlimit64, 0, limit->resource, &value, NULL) < 0) return give_up(s, "setrlimit");
  }
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, NULL);
  exec_in_path(s);
  return give_up(s, request->argv[0]);
}

static const char *find_path(char *const *env) {
  for (; *env; env++) {
    if (strncmp(*env, "PATH=", 5) == 0) return *env + 5;
  }
  return "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
}

bool open_pipe(int *ours, int *theirs, bool towards_us) {
  int fds[2];
  if (pipe2(fds, O_CLOEXEC) != 0) return false;
  *ours = fds[towards_us ? 0 : 1];
  *theirs = fds[towards_us ? 1 : 0];
  return fcntl(*ours, F_SETFL, O_NONBLOCK) == 0;
}

static bool open_streams(struct channel *ch, const struct exec_request *request, int theirs[3]) {
  if (ch->pty) {
    if (!pty_open(request->rows, request->columns, &ch->out[0].fd, &theirs[0])) return false;
    theirs[1] = theirs[2] = theirs[0];
    ch->out[1].ended = true;
    ch->in_fd = fcntl(ch->out[0].fd, F_DUPFD_CLOEXEC, 3);
    return ch->in_fd >= 0;
  }
  theirs[0] = null_fd;
  if ((request->flags & EXEC_STDIN) && !open_pipe(&ch->in_fd, &theirs[0], false)) return false;
  return open_pipe(&ch->out[0].fd, &theirs[1], true) && open_pipe(&ch->out[1].fd, &theirs[2], true);
}

// Its terminal as the agent's own /dev shows it; empty without one.
static bool name_console(const struct channel *ch, char name[32]) {
  unsigned number;
  *name = 0;
  if (!ch->pty) return true;
  if (ioctl(ch->out[0].fd, TIOCGPTN, &number) != 0) return false;
  snprintf(name, 32, "/dev/pts/%u", number);
  return true;
}

// Starts what `spawn` says; its process id, or -1.
static int start(void) {
  if (spawn->init) return clone(child, spawn->stack + STACK_BYTES, SPAWN_FLAGS | CLONE_NEWPID | CLONE_NEWNS, spawn);
  int error = init_world_join();
  if (error) {
    errno = error;
    return -1;
  }
  int pid = clone(child, spawn->stack + STACK_BYTES, SPAWN_FLAGS, spawn);
  error = errno;
  init_world_part();
  errno = error;
  return pid;
}

static void close_theirs(const int theirs[3]) {
  for (int i = 0; i < 3; i++) {
    if (theirs[i] >= 0 && theirs[i] != null_fd && (i == 0 || theirs[i] != theirs[i - 1])) close(theirs[i]);
  }
}

void exec_open(struct channel *ch, struct exec_request *request) {
  bool init = request->flags & EXEC_INIT;
  int refused = init ? init_world_check() : 0;
  if (refused) return channel_fail(ch, refused, "init");
  if (request->flags & EXEC_SCRIPT) {
    int error = write_script(ch->id, request->script);
    if (error) return channel_fail(ch, error, "script");
    ch->script = true;
  }
  char path[48];
  script_path(path, ch->id);
  if (ch->script) request->argv[request->argc] = path;

  ch->pty = request->flags & EXEC_PTY;
  int theirs[3] = {-1, -1, -1};
  if (!spawn || null_fd < 0 || !open_streams(ch, request, theirs) || !name_console(ch, spawn->console)) {
    int error = errno;
    close_theirs(theirs);
    return channel_fail(ch, error, ch->pty ? "terminal" : "pipes");
  }
  spawn->request = request;
  spawn->path = find_path(request->env);
  spawn->pty = ch->pty;
  spawn->init = ch->init = init;
  spawn->protected = oom_protected;
  spawn->error = 0;
  for (int i = 0; i < 3; i++) spawn->fds[i] = theirs[i];
  int pid = start();
  int error = pid < 0 ? errno : spawn->error;
  if (init && !error) init_world_began(pid, ch->pty ? theirs[0] : -1);
  close_theirs(theirs);
  if (error) {
    if (pid > 0) waitpid(pid, NULL, 0);
    // In a namespace whose first process is dying nothing can be born, which the kernel tells as a lack of memory.
    channel_fail(ch, error, pid > 0 ? spawn->step : init_world_lives() ? "fork, or the init is ending" : "fork");
    if (ch->script) exec_remove_script(ch->id);
    ch->script = false;
    return;
  }
  ch->state = RUNNING;
  ch->pid = (uint32_t)pid;
}
