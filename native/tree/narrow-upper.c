#define _GNU_SOURCE
#include "narrow-upper.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <linux/limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "remove-tree.h"

#define UPPER "u"
#define TAKEN_OUT "x"
enum { NAME_BYTES_MAX = 255, FOLDER_MODE = 0755 };

// The layout getdents64(2) documents.
struct dirent64_raw {
  uint64_t ino;
  int64_t off;
  uint16_t reclen;
  uint8_t type;
  char name[];
};

struct narrowing {
  int dir, upper;
  const char *name;
  int taken;       // the folder `x`, -1 until it is needed
  int bin;         // a folder in it for this time, whose names are free; -1 until it is needed
  unsigned count;  // names used in `x`
};

bool narrow_name_good(const char *name) {
  size_t length = strlen(name);
  return length > 0 && length <= NAME_BYTES_MAX && !strchr(name, '/') && strcmp(name, ".") != 0 && strcmp(name, "..") != 0;
}

static int open_folder(int dir, const char *name) { return openat(dir, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC); }

static int open_taken(struct narrowing *n) {
  if (n->taken >= 0) return 0;
  if (mkdirat(n->dir, TAKEN_OUT, 0700) != 0 && errno != EEXIST) return errno;
  n->taken = open_folder(n->dir, TAKEN_OUT);
  return n->taken < 0 ? errno : 0;
}

// A new folder in `x`; what an earlier time left there keeps its name.
static int make_in_taken(struct narrowing *n, mode_t mode, char name[12]) {
  int error = open_taken(n);
  while (!error) {
    snprintf(name, 12, "%u", n->count++);
    if (mkdirat(n->taken, name, mode) == 0) break;
    if (errno != EEXIST) error = errno;
  }
  return error;
}

static int take_out(struct narrowing *n, const char *name) {
  if (n->bin < 0) {
    char bin[12];
    int error = make_in_taken(n, 0700, bin);
    if (error) return error;
    n->bin = open_folder(n->taken, bin);
    if (n->bin < 0) return errno;
  }
  if (renameat(n->upper, name, n->bin, name) == 0) return 0;
  if (errno != EPERM || !tree_unlock(n->upper, name)) return errno;
  return renameat(n->upper, name, n->bin, name) == 0 ? 0 : errno;
}

// Once through the names; `*moved` counts what went.
static int take_out_others(struct narrowing *n, uint64_t *moved) {
  char buffer[8192] __attribute__((aligned(8)));
  if (lseek(n->upper, 0, SEEK_SET) != 0) return errno;
  for (;;) {
    long length = syscall(SYS_getdents64, n->upper, buffer, sizeof buffer);
    if (length < 0) return errno;
    if (length == 0) return 0;
    for (long at = 0; at < length;) {
      const struct dirent64_raw *entry = (const void *)(buffer + at);
      at += entry->reclen;
      if (strcmp(entry->name, ".") == 0 || strcmp(entry->name, "..") == 0 || strcmp(entry->name, n->name) == 0) continue;
      int error = take_out(n, entry->name);
      if (error && error != ENOENT) return error;
      ++*moved;
    }
  }
}

// Owner, mode and attributes of the root were the sandbox's to change.
static int make_plain(int upper) {
  // As many as the kernel ever lists, xattr(7): the sandbox had the root to put them on.
  char names[XATTR_LIST_MAX];
  tree_unlock(upper, NULL);
  if (fchown(upper, 0, 0) != 0 || fchmod(upper, FOLDER_MODE) != 0) return errno;
  ssize_t length = flistxattr(upper, names, sizeof names);
  for (const char *name = names; length > 0 && name < names + length; name += strlen(name) + 1) {
    // Labels of the machine's own may not be removed.
    if (strncmp(name, "security.", 9) != 0 && fremovexattr(upper, name) != 0 && errno != ENODATA) return errno;
  }
  return length < 0 && errno != ENOTSUP ? errno : 0;
}

static int lowers_show(const char *name, const char *const *lowers, int count, bool *shown) {
  *shown = false;
  for (int i = 0; i < count; i++) {
    struct stat s;
    int lower = open(lowers[i], O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (lower < 0) return errno;
    int error = fstatat(lower, name, &s, AT_SYMLINK_NOFOLLOW) == 0 ? 0 : errno;
    close(lower);
    if (error == ENOENT) continue;
    *shown = !error && S_ISDIR(s.st_mode);
    return error;
  }
  return 0;
}

// In the place of something else, at once: until then that hides what lies below, and from then on the opaque folder does.
static int replace_by_folder(struct narrowing *n) {
  char fresh[12];
  int error = make_in_taken(n, FOLDER_MODE, fresh);
  if (error) return error;
  int folder = open_folder(n->taken, fresh);
  if (folder < 0) return errno;
  error = fsetxattr(folder, "trusted.overlay.opaque", "y", 1, 0) == 0 ? 0 : errno;
  close(folder);
  if (error) return error;
  tree_unlock(n->upper, n->name);
  return renameat2(n->taken, fresh, n->upper, n->name, RENAME_EXCHANGE) == 0 ? 0 : errno;
}

static int have_folder(struct narrowing *n, const char *const *lowers, int lower_count) {
  struct stat s;
  bool shown;
  if (fstatat(n->upper, n->name, &s, AT_SYMLINK_NOFOLLOW) == 0) return S_ISDIR(s.st_mode) ? 0 : replace_by_folder(n);
  if (errno != ENOENT) return errno;
  int error = lowers_show(n->name, lowers, lower_count, &shown);
  if (error || shown) return error;
  return mkdirat(n->upper, n->name, FOLDER_MODE) == 0 ? 0 : errno;
}

int narrow_upper(int dir, const char *name, const char *const *lowers, int lower_count) {
  struct narrowing n = {.dir = dir, .name = name, .taken = -1, .bin = -1, .upper = open_folder(dir, UPPER)};
  if (n.upper < 0) return errno;
  int error = make_plain(n.upper);
  // What is moved while names are read may hide others for that time.
  for (uint64_t moved = 1; !error && moved > 0;) {
    moved = 0;
    error = take_out_others(&n, &moved);
  }
  if (!error && lower_count > 0) error = have_folder(&n, lowers, lower_count);
  if (n.bin >= 0) close(n.bin);
  if (n.taken >= 0) close(n.taken);
  close(n.upper);
  return error;
}

int narrow_sweep(int dir, uint64_t most) {
  int taken = open_folder(dir, TAKEN_OUT);
  if (taken < 0) return errno == ENOENT ? 0 : errno;
  return remove_tree_part(taken, most);
}
