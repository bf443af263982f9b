#define _GNU_SOURCE
#include "init-world.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <sys/mount.h>
#include <unistd.h>

#include "disk.h"
#include "root.h"

#define NOT_INSTRUMENTED __attribute__((no_sanitize("address", "undefined")))

static struct {
  pid_t init;  // 0: there is none
  int own_processes, processes, mounts, terminal;
} world = {.own_processes = -1, .processes = -1, .mounts = -1, .terminal = -1};

int init_world_check(void) {
  if (!root_is_vm()) return EOPNOTSUPP;
  if (world.init) return EEXIST;
  if (disk_is_frozen()) return EBUSY;
  // Without a disk the root is the image's, which nothing can be written to.
  return root_is_composed() ? 0 : ENODEV;
}

// Runs in the agent's memory (vfork): nothing here may allocate or lock.
NOT_INSTRUMENTED int init_world_compose(const char *terminal) {
  const unsigned long closed = MS_NOSUID | MS_NODEV | MS_NOEXEC;
  // What was there shows the processes of the agent's namespace.
  if (umount2("/n/proc", MNT_DETACH) != 0 || mount("proc", "/n/proc", "proc", closed, NULL) != 0) return errno;
  if (access("/boot_id", F_OK) == 0 && mount("/boot_id", "/n/proc/sys/kernel/random/boot_id", NULL, MS_BIND, NULL) != 0) return errno;
  if (mount("cgroup2", "/n/sys/fs/cgroup", "cgroup2", closed, "nsdelegate") != 0 && errno != EBUSY) return errno;
  if (*terminal && mount(terminal, "/n/dev/console", NULL, MS_BIND, NULL) != 0) return errno;
  // As switch_root(8) does. In a root that is merely changed the kernel refuses user namespaces, user_namespaces(7).
  if (chdir("/n") != 0 || mount(".", "/", NULL, MS_MOVE, NULL) != 0 || chroot(".") != 0) return errno;
  return 0;
}

static int open_namespace(pid_t pid, const char *name) {
  char path[48];
  if (pid) snprintf(path, sizeof path, "/proc/%d/ns/%s", pid, name);
  else snprintf(path, sizeof path, "/proc/self/ns/%s", name);
  return open(path, O_RDONLY | O_CLOEXEC);
}

static void close_fd(int *fd) {
  if (*fd >= 0) close(*fd);
  *fd = -1;
}

void init_world_began(pid_t init, int terminal) {
  world.init = init;
  world.own_processes = open_namespace(0, "pid");
  world.processes = open_namespace(init, "pid");
  world.mounts = open_namespace(init, "mnt");
  if (terminal >= 0) world.terminal = fcntl(terminal, F_DUPFD_CLOEXEC, 3);
}

bool init_world_lives(void) { return world.init != 0; }

int init_world_join(void) {
  if (!world.init) return 0;
  // It ended before they could be opened, or we ran out of descriptors.
  if (world.own_processes < 0 || world.processes < 0 || world.mounts < 0) return ESRCH;
  return setns(world.processes, CLONE_NEWPID) == 0 ? 0 : errno;
}

void init_world_part(void) {
  // Failing here would have the agent's own workers die with somebody's init.
  if (world.init && world.own_processes >= 0 && setns(world.own_processes, CLONE_NEWPID) != 0) _exit(70);
}

NOT_INSTRUMENTED int init_world_enter(void) {
  if (!world.init) return ENOSYS;
  return setns(world.mounts, CLONE_NEWNS) == 0 ? 0 : errno;
}

void init_world_reaped(pid_t pid) {
  if (!world.init || pid != world.init) return;
  world.init = 0;
  close_fd(&world.own_processes);
  close_fd(&world.processes);
  close_fd(&world.mounts);
  close_fd(&world.terminal);
}
