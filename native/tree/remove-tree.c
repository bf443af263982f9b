#define _GNU_SOURCE
#include "remove-tree.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
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

// ENOTEMPTY: a directory that must be entered first.
static int remove_entry(struct walk *w, const char *name) {
  if (unlinkat(w->fd, name, 0) != 0) {
    if (errno != EISDIR && errno != EPERM) return errno == ENOENT ? 0 : errno;
    if (unlinkat(w->fd, name, AT_REMOVEDIR) != 0) return errno == EEXIST ? ENOTEMPTY : errno == ENOENT ? 0 : errno;
  }
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

int remove_tree_contents(int fd, uint64_t *removed) {
  struct walk w = {.fd = fd, .removed = removed};
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
