#define _GNU_SOURCE
#include "attach.h"

#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "overlay.h"
#include "process.h"

enum { CANNOT_RETURN = 70 };

// What the runtime mounted in the container and the new root keeps.
static const char *const kept[] = {"proc", "dev", "sys", "run"};
enum { KEPT = sizeof kept / sizeof *kept };

// A path the image does not have is made, owned by the sandbox's root. Links are refused: the clone would land wherever they lead.
static struct outcome ensure_mount_points(int root, uint32_t uid_base) {
  for (int i = 0; i < KEPT; i++) {
    struct stat s;
    if (fstatat(root, kept[i], &s, AT_SYMLINK_NOFOLLOW) == 0) {
      if (!S_ISDIR(s.st_mode)) return refused(ENOTDIR, "mount point in the image");
    } else if (errno != ENOENT || mkdirat(root, kept[i], 0755) != 0 || fchownat(root, kept[i], uid_base, uid_base, AT_SYMLINK_NOFOLLOW) != 0) {
      return failed("make a mount point in the image");
    }
  }
  return done(0);
}

static const char *move_kept(const char *name) {
  char from[8], to[16];
  snprintf(from, sizeof from, "/%s", name);
  snprintf(to, sizeof to, "/newroot/%s", name);
  int tree = (int)syscall(SYS_open_tree, AT_FDCWD, from, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_RECURSIVE | AT_SYMLINK_NOFOLLOW);
  if (tree < 0) return "open_tree in the container";
  const char *step = syscall(SYS_move_mount, tree, "", AT_FDCWD, to, MOVE_MOUNT_F_EMPTY_PATH) == 0 ? NULL : "move_mount in the container";
  int error = errno;
  close(tree);
  errno = error;
  return step;
}

// In the container's namespace, before any program of a user has run there. NULL or the step that failed.
static const char *swap_root(int root) {
  if (syscall(SYS_move_mount, root, "", AT_FDCWD, "/newroot", MOVE_MOUNT_F_EMPTY_PATH) != 0) return "move_mount to /newroot";
  const char *step = NULL;
  for (int i = 0; i < KEPT && !step; i++) step = move_kept(kept[i]);
  if (!step && chdir("/newroot") != 0) step = "chdir /newroot";
  // pivot_root(2), "pivot_root(".", ".")": the old root ends up on top of the new one. Every process whose root was the old one, the agent, moves along.
  if (!step && syscall(SYS_pivot_root, ".", ".") != 0) step = "pivot_root";
  int error = errno;
  if (step) {
    if (chdir("/") == 0) umount2("/newroot", MNT_DETACH);
  } else if (umount2(".", MNT_DETACH) != 0) {
    step = "unmount the old root";
    error = errno;
  }
  errno = error;
  return step;
}

static struct outcome enter_and_swap(int namespace, int root) {
  if (setns(namespace, CLONE_NEWNS) != 0) return failed("setns into the container");
  const char *step = swap_root(root);
  struct outcome outcome = step ? failed(step) : done(0);
  // Anywhere but in its own namespace the mounter would mount into a sandbox from then on.
  if (setns(overlay_own_namespace(), CLONE_NEWNS) != 0) _exit(CANNOT_RETURN);
  return outcome;
}

// The process is in another mount namespace and another user namespace than the mounter: never the machine's own root.
static bool is_container(int process) {
  static const char *const namespaces[] = {"ns/mnt", "ns/user"};
  int self = open("/proc/self", O_PATH | O_DIRECTORY | O_CLOEXEC);
  bool other = self >= 0;
  for (int i = 0; i < 2 && other; i++) {
    struct stat theirs, ours;
    other = fstatat(process, namespaces[i], &theirs, 0) == 0 && fstatat(self, namespaces[i], &ours, 0) == 0 && theirs.st_ino != ours.st_ino;
  }
  if (self >= 0) close(self);
  return other;
}

static struct outcome open_namespace(const struct request *request) {
  int process = process_open(request->pid, request->start);
  if (process < 0) return failed("process");
  int namespace = is_container(process) ? openat(process, "ns/mnt", O_RDONLY | O_CLOEXEC) : -1;
  struct outcome outcome = namespace < 0 ? refused(EINVAL, "not a container") : done((uint64_t)namespace);
  close(process);
  return outcome;
}

static uint64_t now_us(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

struct outcome attach_root(const struct request *request) {
  uint64_t began = now_us();
  struct outcome namespace = open_namespace(request);
  if (namespace.error) return namespace;
  struct outcome outcome = overlay_build(request->uid_base, request->lowers, request->lower_count, request->path, request->flags & ATTACH_VOLATILE);
  if (!outcome.error) {
    int root = (int)outcome.value;
    outcome = ensure_mount_points(root, request->uid_base);
    if (!outcome.error) outcome = enter_and_swap((int)namespace.value, root);
    close(root);
  }
  close((int)namespace.value);
  if (!outcome.error) outcome.value = now_us() - began;
  return outcome;
}
