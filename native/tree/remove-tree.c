#define _GNU_SOURCE
#include "remove-tree.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { DEPTH_MAX = 1 << 16 };

struct walk {
  int fd;
  dev_t device;
  ino_t *parents;  // inodes of the directories above: ".." is believed only if it leads there
  size_t depth, capacity;
  uint64_t *removed;
  uint64_t last;  // of `removed`: no more than that many
  bool unlocks;
};

// The layout getdents64(2) documents.
struct dirent64_raw {
  uint64_t ino;
  int64_t off;
  uint16_t reclen;
  uint8_t type;
  char name[];
};

static int descend(struct walk *w, const char *name) {
  struct stat above, below;
  if (w->depth == DEPTH_MAX) return ELOOP;
  if (fstat(w->fd, &above) != 0) return errno;
  if (w->depth == w->capacity) {
    size_t capacity = w->capacity ? 2 * w->capacity : 64;
    ino_t *parents = realloc(w->parents, capacity * sizeof *parents);
    if (!parents) return ENOMEM;
    w->parents = parents;
    w->capacity = capacity;
  }
  int fd = openat(w->fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
  if (fd < 0) return errno;
  if (fstat(fd, &below) != 0 || below.st_dev != w->device) {
    close(fd);
    return EXDEV;
  }
  w->parents[w->depth++] = above.st_ino;
  close(w->fd);
  w->fd = fd;
  return 0;
}

static int ascend(struct walk *w) {
  struct stat above;
  int fd = openat(w->fd, "..", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return errno;
  if (fstat(fd, &above) != 0 || above.st_dev != w->device || above.st_ino != w->parents[w->depth - 1]) {
    close(fd);
    return ESTALE;
  }
  w->depth--;
  close(w->fd);
  w->fd = fd;
  return 0;
}

// ioctl_iflags(2): immutable and append-only inodes can be neither renamed nor removed, nor what is in such a directory.
bool tree_unlock(int dir, const char *name) {
  int flags, fd = dir;
  struct stat s;
  if (name) {
    // Opening anything else could do something.
    if (fstatat(dir, name, &s, AT_SYMLINK_NOFOLLOW) != 0 || !(S_ISREG(s.st_mode) || S_ISDIR(s.st_mode))) return false;
    fd = openat(dir, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0) return false;
  }
  bool locked = ioctl(fd, FS_IOC_GETFLAGS, &flags) == 0 && flags & (FS_IMMUTABLE_FL | FS_APPEND_FL);
  flags &= ~(FS_IMMUTABLE_FL | FS_APPEND_FL);
  bool unlocked = locked && ioctl(fd, FS_IOC_SETFLAGS, &flags) == 0;
  if (name) close(fd);
  return unlocked;
}

static int try_remove(const struct walk *w, const char *name) {
  if (unlinkat(w->fd, name, 0) == 0) return 0;
  if (errno != EISDIR && errno != EPERM) return errno;
  if (unlinkat(w->fd, name, AT_REMOVEDIR) == 0) return 0;
  return errno == EEXIST ? ENOTEMPTY : errno;
}

// ENOTEMPTY: a directory that must be entered first.
static int remove_entry(struct walk *w, const char *name) {
  if (*w->removed == w->last) return EAGAIN;
  int error = try_remove(w, name);
  if (w->unlocks && (error == EPERM || error == ENOTDIR)) {
    bool above = tree_unlock(w->fd, NULL);
    if (tree_unlock(w->fd, name) || above) error = try_remove(w, name);
  }
  if (error) return error == ENOENT ? 0 : error;
  ++*w->removed;
  return 0;
}

// Clears the current directory as far as that goes; ENOTEMPTY once it stands in the first full one below.
static int clear(struct walk *w) {
  char buffer[8192] __attribute__((aligned(8)));
  if (lseek(w->fd, 0, SEEK_SET) != 0) return errno;
  for (;;) {
    long length = syscall(SYS_getdents64, w->fd, buffer, sizeof buffer);
    if (length < 0) return errno;
    if (length == 0) return 0;
    for (long at = 0; at < length;) {
      const struct dirent64_raw *entry = (const void *)(buffer + at);
      at += entry->reclen;
      if (strcmp(entry->name, ".") == 0 || strcmp(entry->name, "..") == 0) continue;
      int error = remove_entry(w, entry->name);
      if (error != ENOTEMPTY) {
        if (error) return error;
        continue;
      }
      error = descend(w, entry->name);
      return error ? error : ENOTEMPTY;
    }
  }
}

static int remove_contents(int fd, uint64_t *removed, uint64_t last, bool unlocks) {
  struct walk w = {.fd = fd, .removed = removed, .last = last, .unlocks = unlocks};
  struct stat top;
  int error = fstat(fd, &top) == 0 ? 0 : errno;
  w.device = top.st_dev;
  while (!error) {
    error = clear(&w);
    if (error == ENOTEMPTY) error = 0;
    else if (!error && w.depth == 0) break;
    else if (!error) error = ascend(&w);
  }
  close(w.fd);
  free(w.parents);
  return error;
}

int remove_tree_contents(int fd, uint64_t *removed) { return remove_contents(fd, removed, UINT64_MAX, false); }

int remove_tree_part(int fd, uint64_t most) {
  uint64_t removed = 0;
  return remove_contents(fd, &removed, most, true);
}
