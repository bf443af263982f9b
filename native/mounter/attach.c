#define _GNU_SOURCE
#include "attach.h"

#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "clock.h"
#include "overlay.h"
#include "process.h"

enum { CANNOT_RETURN = 70 };

// What the runtime mounted in the container and the new root keeps.
static const char *const kept[] = {"proc", "dev", "sys", "run"};
enum { KEPT = sizeof kept / sizeof *kept };
// Where the new root lies before it is entered: on top of a mount that every root has, so that no root needs a folder for it. That is why a container's root can be swapped more than once.
#define MEETING_POINT "/run"

// A path the image does not have is made, owned by the sandbox's root. Links are refused: the clone would land wherever they lead.
struct outcome attach_mount_points(int root, uint32_t uid_base) {
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

static int clone_kept(const char *name) {
  char from[8];
  snprintf(from, sizeof from, "/%s", name);
  return (int)syscall(SYS_open_tree, AT_FDCWD, from, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_RECURSIVE | AT_SYMLINK_NOFOLLOW);
}

static const char *move_kept(int tree, const char *name) {
  char to[16];
  snprintf(to, sizeof to, MEETING_POINT "/%s", name);
  return syscall(SYS_move_mount, tree, "", AT_FDCWD, to, MOVE_MOUNT_F_EMPTY_PATH) == 0 ? NULL : "move_mount in the container";
}

// The new root lies on MEETING_POINT already.
static const char *enter_root(const int trees[KEPT]) {
  const char *step = NULL;
  for (int i = 0; i < KEPT && !step; i++) step = move_kept(trees[i], kept[i]);
  if (!step && chdir(MEETING_POINT) != 0) step = "chdir to the new root";
  // pivot_root(2), "pivot_root(".", ".")": the old root ends up on top of the new one. Every process whose root was the old one, the agent, moves along.
  if (!step && syscall(SYS_pivot_root, ".", ".") != 0) step = "pivot_root";
  if (!step) return umount2(".", MNT_DETACH) == 0 ? NULL : "unmount the old root";
  int error = errno;
  if (chdir("/") == 0) umount2(MEETING_POINT, MNT_DETACH);
  errno = error;
  return step;
}

// In the container's namespace, before any program of a user has run there. NULL or the step that failed.
static const char *swap_root(int root) {
  int trees[KEPT], cloned = 0;
  const char *step = NULL;
  while (cloned < KEPT && !step) {
    trees[cloned] = clone_kept(kept[cloned]);
    if (trees[cloned] < 0) step = "open_tree in the container";
    else cloned++;
  }
  if (!step && syscall(SYS_move_mount, root, "", AT_FDCWD, MEETING_POINT, MOVE_MOUNT_F_EMPTY_PATH) != 0) step = "move_mount of the new root";
  else if (!step) step = enter_root(trees);
  int error = errno;
  while (cloned > 0) close(trees[--cloned]);
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

struct outcome attach_root(const struct request *request) {
  uint64_t began = clock_us();
  struct outcome namespace = open_namespace(request);
  if (namespace.error) return namespace;
  struct outcome outcome = overlay_build(request);
  if (!outcome.error) {
    int root = (int)outcome.value;
    outcome = attach_mount_points(root, request->uid_base);
    if (!outcome.error) outcome = enter_and_swap((int)namespace.value, root);
    close(root);
  }
  close((int)namespace.value);
  if (!outcome.error) outcome.value = clock_us() - began;
  return outcome;
}
