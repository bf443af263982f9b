#define _GNU_SOURCE
#include "daemon-root.h"

#include <fcntl.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "attach.h"
#include "clock.h"
#include "overlay.h"
#include "run.h"

enum { CANNOT_RETURN = 70 };

static void return_home(void) {
  // Anywhere but in its own namespace the mounter's layers would be seen by all.
  if (setns(overlay_own_namespace(), CLONE_NEWNS) != 0) _exit(CANNOT_RETURN);
}

struct outcome daemon_root_mount(const struct request *request) {
  uint64_t began = clock_us();
  struct outcome outcome = overlay_build(request);
  if (outcome.error) return outcome;
  int root = (int)outcome.value;
  outcome = attach_mount_points(root, request->uid_base);
  if (!outcome.error && setns(run_daemon_mounts(), CLONE_NEWNS) != 0) outcome = failed("setns to the daemon's mounts");
  else if (!outcome.error) {
    if (syscall(SYS_move_mount, root, "", AT_FDCWD, request->second, MOVE_MOUNT_F_EMPTY_PATH) != 0) outcome = failed("move_mount of the root");
    return_home();
  }
  close(root);
  if (!outcome.error) outcome.value = clock_us() - began;
  return outcome;
}

struct outcome daemon_root_unmount(const struct request *request) {
  if (setns(run_daemon_mounts(), CLONE_NEWNS) != 0) return failed("setns to the daemon's mounts");
  struct outcome outcome = umount2(request->path, MNT_DETACH | UMOUNT_NOFOLLOW) == 0 ? done(0) : failed("unmount the root");
  return_home();
  return outcome;
}
