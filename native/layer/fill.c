#define _GNU_SOURCE
#include "fill.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "chain.h"
#include "layer-request.h"
#include "tell.h"

#ifndef SYS_fchmodat2
#define SYS_fchmodat2 452
#endif

// A folder that is being filled. What it shall be like is set when the tree leaves it: before, a default ACL or set-group-id bit would be passed on to what is
// made in it, and its modification time would not last.
struct open_folder {
  int fd;
  size_t path_length;
  struct new_entry entry;  // its spans are in `attributes` or empty
  uint8_t *attributes;
};

static struct open_folder stack[CHAIN_LEVELS];
static uint32_t depth;
static uint8_t path[LAYER_PATH_MAX + 1];  // of the folder on top
static struct {
  int fd;  // -1: none
  struct new_entry entry;
  uint8_t path[LAYER_PATH_MAX], *attributes;
  uint64_t end;
} file = {.fd = -1};

static struct timespec time_of(int64_t ns) {
  int64_t seconds = ns / 1000000000, rest = ns % 1000000000;
  if (rest < 0) {
    seconds--;
    rest += 1000000000;
  }
  return (struct timespec){.tv_sec = seconds, .tv_nsec = rest};
}

static void set_attributes(const struct new_entry *e, int fd, const char *name) {
  struct layer_reader r = layer_read(e->attributes);
  uint32_t left = e->attribute_count;
  for (struct attribute a; layer_next_attribute(&r, &left, &a);) {
    char attribute[LAYER_NAME_MAX + 1];
    memcpy(attribute, a.name.bytes, a.name.length);
    attribute[a.name.length] = 0;
    int failed = fd >= 0 ? fsetxattr(fd, attribute, a.value.bytes, a.value.length, 0) : lsetxattr(name, attribute, a.value.bytes, a.value.length, 0);
    if (failed) wire_fail(errno, attribute, e->path);
  }
}

// Owner, mode, attributes and time of what `fd` is, in this order: a change of owner clears set-id bits and capabilities.
static void finish(const struct new_entry *e, int fd, bool mode_is_set) {
  if ((e->uid || e->gid || !mode_is_set) && fchown(fd, e->uid, e->gid) != 0) wire_fail(errno, "set the owner", e->path);
  if ((!mode_is_set || e->mode > 0777) && fchmod(fd, e->mode) != 0) wire_fail(errno, "set the mode", e->path);
  set_attributes(e, fd, NULL);
  struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}, time_of(e->mtime_ns)};
  if (futimens(fd, times) != 0) wire_fail(errno, "set the time", e->path);
}

static uint8_t *keep_attributes(struct new_entry *e) {
  if (e->attributes.length == 0) return NULL;
  uint8_t *copy = malloc(e->attributes.length);
  if (!copy) wire_fail(ENOMEM, "remember attributes", e->path);
  memcpy(copy, e->attributes.bytes, e->attributes.length);
  e->attributes.bytes = copy;
  return copy;
}

static void leave_file(void) {
  if (file.fd < 0) return;
  if (file.end != file.entry.size && ftruncate(file.fd, (off_t)file.entry.size) != 0) wire_fail(errno, "set the size", file.entry.path);
  finish(&file.entry, file.fd, true);
  close(file.fd);
  free(file.attributes);
  file.fd = -1;
}

static void leave_folder(void) {
  struct open_folder *top = &stack[--depth];
  top->entry.path = span_of(path, top->path_length);
  finish(&top->entry, top->fd, false);
  close(top->fd);
  free(top->attributes);
  if (depth > 0) path[stack[depth - 1].path_length] = 0;
}

static void enter_folder(const struct new_entry *e, int fd) {
  if (depth == CHAIN_LEVELS) wire_fail(ELOOP, "folders in folders", e->path);
  struct open_folder *top = &stack[depth++];
  *top = (struct open_folder){.fd = fd, .path_length = e->path.length, .entry = *e};
  top->attributes = keep_attributes(&top->entry);
  memcpy(path, e->path.bytes, e->path.length);
}

static void check_empty(int fd) {
  char buffer[1024] __attribute__((aligned(8)));
  long length = syscall(SYS_getdents64, fd, buffer, sizeof buffer);
  if (length < 0) wire_fail(errno, "look into the layer", no_path());
  // "." and ".." take 24 bytes each.
  if (length > 48) wire_fail(ENOTEMPTY, "a layer that is filled must be empty", no_path());
}

static void enter_root(const struct new_entry *e) {
  if (depth > 0) wire_fail(EINVAL, "the root comes once", no_path());
  int fd = open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) wire_fail(errno, "open the layer", no_path());
  check_empty(fd);
  enter_folder(e, fd);
}

// Leaves folders until the one on top is the parent. Returns where the last name of the path begins.
static size_t go_to_parent(const struct new_entry *e) {
  const uint8_t *slash = memrchr(e->path.bytes, '/', e->path.length);
  size_t parent = slash ? (size_t)(slash - e->path.bytes) : 0;
  while (depth > 0 && stack[depth - 1].path_length > parent) leave_folder();
  if (depth == 0 || stack[depth - 1].path_length != parent || memcmp(path, e->path.bytes, parent) != 0) {
    wire_fail(EINVAL, "not in the folder that is being filled", e->path);
  }
  return slash ? parent + 1 : 0;
}

static void make_folder(const struct new_entry *e, int parent, const char *name) {
  if (mkdirat(parent, name, 0700) != 0) wire_fail(errno, "make a folder", e->path);
  int fd = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
  if (fd < 0) wire_fail(errno, "open a new folder", e->path);
  enter_folder(e, fd);
}

static void make_file(const struct new_entry *e, int parent, const char *name) {
  file.fd = openat(parent, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_NOCTTY | O_CLOEXEC, e->mode & 0777);
  if (file.fd < 0) wire_fail(errno, "make a file", e->path);
  file.entry = *e;
  memcpy(file.path, e->path.bytes, e->path.length);
  file.entry.path.bytes = file.path;
  file.attributes = keep_attributes(&file.entry);
  file.end = 0;
}

static void make_special(const struct new_entry *e, int parent, const char *name) {
  if (e->kind == KIND_SYMLINK) {
    char target[LAYER_PATH_MAX + 1];
    memcpy(target, e->target.bytes, e->target.length);
    target[e->target.length] = 0;
    if (symlinkat(target, parent, name) != 0) wire_fail(errno, "make a link", e->path);
  } else {
    mode_t type = e->kind == KIND_FIFO ? S_IFIFO : e->kind == KIND_SOCKET ? S_IFSOCK : S_IFCHR;
    if (mknodat(parent, name, type | e->mode, 0) != 0) wire_fail(errno, "make a special file", e->path);
  }
  if ((e->uid || e->gid) && fchownat(parent, name, e->uid, e->gid, AT_SYMLINK_NOFOLLOW) != 0) wire_fail(errno, "set the owner", e->path);
  // The set-id bits that the change of owner cleared. The plain call, of kernels before 6.6, follows links, but stays in here.
  if (e->kind != KIND_SYMLINK && (e->uid || e->gid) && e->mode > 0777 && syscall(SYS_fchmodat2, parent, name, e->mode, AT_SYMLINK_NOFOLLOW) != 0 &&
      fchmodat(parent, name, e->mode, 0) != 0) {
    wire_fail(errno, "set the mode", e->path);
  }
  if (e->attribute_count) {
    if (fchdir(parent) != 0) wire_fail(errno, "enter a folder", e->path);
    set_attributes(e, -1, name);
  }
  struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}, time_of(e->mtime_ns)};
  if (utimensat(parent, name, times, AT_SYMLINK_NOFOLLOW) != 0) wire_fail(errno, "set the time", e->path);
}

static void make_hard_link(const struct new_entry *e, int parent, const char *name) {
  char other[LAYER_PATH_MAX + 1];
  memcpy(other, e->link_to.bytes, e->link_to.length);
  other[e->link_to.length] = 0;
  char *slash = strrchr(other, '/');
  if (slash) *slash = 0;
  struct open_how how = {.flags = O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC, .resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_XDEV};
  int folder = (int)syscall(SYS_openat2, stack[0].fd, slash ? other : ".", &how, sizeof how);
  if (folder < 0 || linkat(folder, slash ? slash + 1 : other, parent, name, 0) != 0) wire_fail(errno, "make a hard link", e->path);
  close(folder);
}

static void take_entry(struct span payload) {
  struct new_entry e;
  if (!layer_decode_entry(payload, &e)) wire_fail(EPROTO, "an entry that is none", no_path());
  leave_file();
  if (e.path.length == 0) return enter_root(&e);
  size_t at = go_to_parent(&e);
  char name[LAYER_NAME_MAX + 1];
  memcpy(name, e.path.bytes + at, e.path.length - at);
  name[e.path.length - at] = 0;
  int parent = stack[depth - 1].fd;
  if (e.link_to.length) make_hard_link(&e, parent, name);
  else if (e.kind == KIND_DIRECTORY) make_folder(&e, parent, name);
  else if (e.kind == KIND_FILE) make_file(&e, parent, name);
  else make_special(&e, parent, name);
}

static void take_data(struct span payload) {
  uint64_t offset;
  struct span bytes;
  if (!layer_decode_data(payload, &offset, &bytes)) wire_fail(EPROTO, "data that is none", no_path());
  if (file.fd < 0) wire_fail(EINVAL, "data without a file", no_path());
  if (offset + bytes.length > file.entry.size) wire_fail(EINVAL, "data behind the end", file.entry.path);
  for (size_t done = 0; done < bytes.length;) {
    ssize_t written = pwrite(file.fd, bytes.bytes + done, bytes.length - done, (off_t)(offset + done));
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) wire_fail(written < 0 ? errno : EIO, "write", file.entry.path);
    done += (size_t)written;
  }
  if (offset + bytes.length > file.end) file.end = offset + bytes.length;
}

bool fill(void) {
  for (struct ask ask; wire_next(&ask);) {
    if (ask.type == ASK_ENTRY) take_entry(ask.payload);
    else if (ask.type == ASK_DATA) take_data(ask.payload);
    else if (ask.type == ASK_WRITE_END && ask.payload.length == 0) {
      leave_file();
      while (depth > 0) leave_folder();
      tell_done();
      return true;
    } else wire_fail(EPROTO, "request", no_path());
  }
  return false;
}
