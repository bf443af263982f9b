// Layers reach overlay as paths of attached idmapped mounts, not as descriptors: that form works from Linux 6.1 to 6.18 (descriptors from 6.13 on).
#define _GNU_SOURCE
#include "overlay.h"

#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "../tree/remove-tree.h"
#include "user-namespace.h"

// Short and numbered: fsconfig takes at most 255 bytes of lower directories, and users of a sandbox can read them in /proc/self/mountinfo.
#define POINTS "/run/l"
enum { FSCONFIG_BYTES_MAX = 255, OPTIONS_BYTES_MAX = 4095 };

static int own_namespace = -1, points = -1;
static int points_made;

int overlay_own_namespace(void) { return own_namespace; }

struct outcome overlay_prepare(void) {
  if (unshare(CLONE_NEWNS) != 0) return failed("unshare");
  if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0) return failed("make mounts private");
  if (mkdir(POINTS, 0700) != 0 && errno != EEXIST) return failed("mkdir " POINTS);
  if (mount("mags", POINTS, "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, "size=1m,mode=0700") != 0) return failed("mount " POINTS);
  points = open(POINTS, O_PATH | O_DIRECTORY | O_CLOEXEC);
  if (points < 0 || mkdirat(points, "w", 0700) != 0 || mkdirat(points, "m", 0700) != 0) return failed("attach points");
  own_namespace = open("/proc/self/ns/mnt", O_RDONLY | O_CLOEXEC);
  return own_namespace < 0 ? failed("open own namespace") : done(0);
}

struct outcome overlay_prepare_child(void) {
  if (unshare(CLONE_NEWNS) != 0) return failed("unshare");
  close(points);
  // The descriptor leads to the mount of the parent's namespace.
  points = open(POINTS, O_PATH | O_DIRECTORY | O_CLOEXEC);
  return points < 0 ? failed("attach points") : done(0);
}

// A clone of `path`, idmapped unless `users` is -1, becomes POINTS/`name`. NULL or the step that failed.
static const char *attach_layer(const char *path, const char *name, int users, bool read_only) {
  struct mount_attr attributes = {
      .attr_set = MOUNT_ATTR_IDMAP | (read_only ? MOUNT_ATTR_RDONLY : 0),
      .userns_fd = (uint64_t)users,
  };
  int tree = (int)syscall(SYS_open_tree, AT_FDCWD, path, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_SYMLINK_NOFOLLOW);
  if (tree < 0) return "open_tree";
  const char *step = NULL;
  if (users >= 0 && syscall(SYS_mount_setattr, tree, "", AT_EMPTY_PATH, &attributes, sizeof attributes) != 0) step = "mount_setattr idmap";
  else if (syscall(SYS_move_mount, tree, "", points, name, MOVE_MOUNT_F_EMPTY_PATH) != 0) step = "move_mount layer";
  int error = errno;
  close(tree);
  errno = error;
  return step;
}

static const char *attach_lower(int index, const char *path, int users) {
  char name[12];
  snprintf(name, sizeof name, "%d", index);
  if (index >= points_made) {
    if (mkdirat(points, name, 0700) != 0 && errno != EEXIST) return "mkdir attach point";
    points_made = index + 1;
  }
  return attach_layer(path, name, users, true);
}

static int mount_by_context(const char *lower, uint32_t flags, struct outcome *why) {
  int fs = (int)syscall(SYS_fsopen, "overlay", FSOPEN_CLOEXEC);
  if (fs < 0) {
    *why = failed("fsopen");
    return -1;
  }
  // Some kernels have an index and redirects by default. The first would tie an upper to the very lower layers it was first used with, the others hide in attributes that a saved layer does not have.
  const char *const settings[][2] = {
      {"source", "overlay"},
      {"lowerdir", lower},
      {"upperdir", POINTS "/w/u"},
      {"workdir", POINTS "/w/w"},
      {"index", "off"},
      {"redirect_dir", flags & ROOT_SHIFTED ? "on" : "nofollow"},
      {"metacopy", flags & ROOT_SHIFTED ? "on" : "off"},
  };
  const bool is_volatile = flags & ROOT_VOLATILE;
  int mounted = -1;
  *why = done(0);
  for (size_t i = 0; i < sizeof settings / sizeof *settings && !why->error; i++) {
    if (syscall(SYS_fsconfig, fs, FSCONFIG_SET_STRING, settings[i][0], settings[i][1], 0) != 0) *why = failed(settings[i][0]);
  }
  if (!why->error && is_volatile && syscall(SYS_fsconfig, fs, FSCONFIG_SET_FLAG, "volatile", NULL, 0) != 0) *why = failed("volatile");
  if (!why->error && syscall(SYS_fsconfig, fs, FSCONFIG_CMD_CREATE, NULL, NULL, 0) != 0) *why = failed("create overlay");
  if (!why->error) {
    mounted = (int)syscall(SYS_fsmount, fs, FSMOUNT_CLOEXEC, MOUNT_ATTR_NODEV);
    if (mounted < 0) *why = failed("fsmount");
  }
  if (why->error) {
    // Each read gives one message of the mount context, such as "e overlay: ...".
    ssize_t length = read(fs, why->words, sizeof why->words - 1);
    why->words[length > 0 ? length : 0] = 0;
  }
  close(fs);
  return mounted;
}

// For more layers than an fsconfig string holds: mount(2) has a page for its options.
static int mount_by_options(const char *lower, uint32_t flags, struct outcome *why) {
  char options[OPTIONS_BYTES_MAX + 1];
  int length = snprintf(options, sizeof options, "lowerdir=%s,upperdir=" POINTS "/w/u,workdir=" POINTS "/w/w,index=off,%s%s", lower,
                        flags & ROOT_SHIFTED ? "redirect_dir=on,metacopy=on" : "redirect_dir=nofollow,metacopy=off", flags & ROOT_VOLATILE ? ",volatile" : "");
  if (length > OPTIONS_BYTES_MAX) {
    *why = refused(E2BIG, "too many layers");
    return -1;
  }
  if (mount("overlay", POINTS "/m", "overlay", MS_NODEV, options) != 0) {
    *why = failed("mount overlay");
    return -1;
  }
  int mounted = (int)syscall(SYS_open_tree, points, "m", OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
  *why = mounted < 0 ? failed("open_tree overlay") : done(0);
  umount2(POINTS "/m", MNT_DETACH);
  return mounted;
}

// Made by us and owned by nobody in the sandbox: without an idmap its owner is not mapped either.
static const char *own_upper(uint32_t uid_base) { return chown(POINTS "/w/u", uid_base, uid_base) == 0 ? NULL : "chown u"; }

struct outcome overlay_build(const struct request *request) {
  static char lower[LOWERS_MAX * sizeof POINTS "/999:"];
  const int count = request->lower_count;
  const bool shifted = request->flags & ROOT_SHIFTED;
  int users = shifted ? -1 : user_namespace(request->uid_base);
  if (users < 0 && !shifted) return failed("user namespace");
  struct outcome why = done(0);
  size_t length = 0;
  int attached = 0;
  const char *step = attach_layer(request->path, "w", users, false);
  bool upper_attached = !step;
  if (!step && shifted) step = own_upper(request->uid_base);
  for (; !step && attached < count; attached++) {
    step = attach_lower(attached, request->lowers[attached], users);
    if (step) break;
    length += (size_t)sprintf(lower + length, "%s" POINTS "/%d", attached ? ":" : "", attached);
  }
  int mounted = -1;
  if (step) why = failed(step);
  else if (length <= FSCONFIG_BYTES_MAX) mounted = mount_by_context(lower, request->flags, &why);
  else mounted = mount_by_options(lower, request->flags, &why);
  // Overlay has clones of its own by now.
  if (upper_attached) umount2(POINTS "/w", MNT_DETACH);
  while (attached > 0) {
    char path[sizeof POINTS + 12];
    snprintf(path, sizeof path, POINTS "/%d", --attached);
    umount2(path, MNT_DETACH);
  }
  if (!why.error) why.value = (uint64_t)mounted;
  return why;
}

static int write_file(int dir, const char *name, const char *text) {
  int fd = openat(dir, name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  if (fd < 0) return -1;
  ssize_t written = write(fd, text, strlen(text));
  close(fd);
  return written < 0 ? -1 : 0;
}

// Reads and writes through a mounted overlay: without the right idmap it mounts and is read-only.
static struct outcome try_overlay(int root, uint32_t uid_base) {
  struct stat owner;
  if (fstatat(root, "lower", &owner, AT_SYMLINK_NOFOLLOW) != 0) return failed("read a lower file");
  if (owner.st_uid != uid_base) return refused(EOVERFLOW, "owner of a lower file");
  if (write_file(root, "lower", "changed") != 0) return failed("change a lower file");
  if (write_file(root, "new", "new") != 0 || fchownat(root, "new", uid_base, uid_base, AT_SYMLINK_NOFOLLOW) != 0) return failed("write a new file");
  return unlinkat(root, "lower", 0) == 0 ? done(0) : failed("remove a lower file");
}

static struct outcome build_and_try(int trial, const char *const lowers[2], const char *upper) {
  enum { PROBE_UID_BASE = 1 << 20 };
  static const char *const parts[] = {"a", "b", "w", "w/u", "w/w"};
  for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
    if (mkdirat(trial, parts[i], 0755) != 0) return failed("mkdir for the probe");
  }
  if (write_file(trial, "a/lower", "top") != 0 || write_file(trial, "b/lower", "bottom") != 0) return failed("write for the probe");
  static struct request request;
  request = (struct request){.uid_base = PROBE_UID_BASE, .lower_count = 2, .path = upper};
  memcpy(request.lowers, lowers, 2 * sizeof *lowers);
  struct outcome built = overlay_build(&request);
  if (built.error) return built;
  struct outcome tried = try_overlay((int)built.value, PROBE_UID_BASE);
  close((int)built.value);
  return tried;
}

struct outcome overlay_probe(const char *dir) {
  char trial[PATH_BYTES_MAX + 32], a[sizeof trial + 4], b[sizeof trial + 4], w[sizeof trial + 4];
  snprintf(trial, sizeof trial, "%s/.probe-%d", dir, getpid());
  snprintf(a, sizeof a, "%s/a", trial);
  snprintf(b, sizeof b, "%s/b", trial);
  snprintf(w, sizeof w, "%s/w", trial);
  if (mkdir(trial, 0700) != 0) return failed("mkdir for the probe");
  int fd = open(trial, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
  if (fd < 0) return failed("open for the probe");
  struct outcome tried = build_and_try(fd, (const char *const[]){a, b}, w);
  uint64_t removed = 0;
  remove_tree_contents(fd, &removed);
  rmdir(trial);
  return tried;
}
