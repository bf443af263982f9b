#define _GNU_SOURCE
#include "files.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../tree/remove-tree.h"
#include "worker.h"

static char type_letter(mode_t mode) {
  switch (mode & S_IFMT) {
    case S_IFDIR: return 'd';
    case S_IFLNK: return 'l';
    case S_IFIFO: return 'p';
    case S_IFSOCK: return 's';
    case S_IFCHR: return 'c';
    case S_IFBLK: return 'b';
    default: return 'f';
  }
}

struct entry files_describe(const struct stat *s) {
  return (struct entry){
      .type = type_letter(s->st_mode),
      .mode = s->st_mode & 07777,
      .size = (uint64_t)s->st_size,
      .mtime_ns = (int64_t)s->st_mtim.tv_sec * 1000000000 + s->st_mtim.tv_nsec,
  };
}

static const char *last_component(const char *path) {
  const char *slash = strrchr(path, '/');
  return slash && slash[1] ? slash + 1 : path;
}

void files_stat(uint32_t request, const char *path, struct bytes *out) {
  struct stat s;
  if (lstat(path, &s) != 0) return put_reply_head(out, request, errno, 0);
  size_t start = bytes_count(out);
  struct entry entry = files_describe(&s);
  put_reply_head(out, request, 0, 0);
  put_entry(out, last_component(path), &entry);
  end_frame(out, start);
}

void files_list(uint32_t request, const char *path, uint32_t skip, uint32_t most, struct bytes *out) {
  enum { ENTRY_BYTES_MAX = 25 + NAME_MAX };
  int fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
  DIR *dir = fd < 0 ? NULL : fdopendir(fd);
  if (!dir) {
    int error = errno;
    if (fd >= 0) close(fd);
    return put_reply_head(out, request, error, 0);
  }
  size_t start = bytes_count(out);
  put_reply_head(out, request, 0, 0);
  size_t counts = bytes_count(out);
  put_u8(out, 0);
  put_u32(out, 0);
  uint32_t count = 0;
  bool more = false;
  for (const struct dirent *found; (found = readdir(dir));) {
    struct stat s;
    if (strcmp(found->d_name, ".") == 0 || strcmp(found->d_name, "..") == 0) continue;
    if (skip > 0) {
      skip--;
      continue;
    }
    more = count == most || bytes_count(out) - start + ENTRY_BYTES_MAX > AGENT_PAYLOAD_MAX;
    if (more) break;
    struct entry entry = {.type = 'f'};
    // Gone between the two calls: it keeps its place, or `skip` would miss others the next time.
    if (fstatat(fd, found->d_name, &s, AT_SYMLINK_NOFOLLOW) == 0) entry = files_describe(&s);
    put_entry(out, found->d_name, &entry);
    count++;
  }
  closedir(dir);
  end_frame(out, start);
  if (out->failed) return;
  uint8_t *into = bytes_front(out) + counts;
  *into++ = more;
  for (int i = 0; i < 4; i++) *into++ = (uint8_t)(count >> 8 * i);
}

int files_open_regular(const char *path, int flags, uint32_t mode) {
  int fd = open(path, flags | O_NONBLOCK | O_NOCTTY | O_CLOEXEC, mode);
  if (fd < 0) return -1;
  struct stat s;
  if (fstat(fd, &s) == 0 && S_ISREG(s.st_mode)) return fd;
  close(fd);
  errno = S_ISDIR(s.st_mode) ? EISDIR : EINVAL;
  return -1;
}

void files_read(uint32_t request, const char *path, uint64_t offset, uint32_t most, struct bytes *out) {
  if (most > READ_BYTES_MAX) most = READ_BYTES_MAX;
  int fd = files_open_regular(path, O_RDONLY, 0);
  if (fd < 0) return put_reply_head(out, request, errno, 0);
  size_t start = bytes_count(out);
  put_reply_head(out, request, 0, 0);
  uint8_t *into = bytes_reserve(out, most);
  uint32_t done = 0;
  int error = offset > INT64_MAX ? EINVAL : 0;
  while (into && !error && done < most) {
    ssize_t length = pread(fd, into + done, most - done, (off_t)(offset + done));
    if (length < 0) error = errno;
    if (length <= 0) break;
    done += (uint32_t)length;
  }
  close(fd);
  if (error) {
    bytes_keep(out, start);
    return put_reply_head(out, request, error, 0);
  }
  bytes_filled(out, into ? done : 0);
  end_frame(out, start);
}

static int make_directory(const char *path, uint32_t mode) { return mkdir(path, mode & 07777) == 0 ? 0 : errno; }

int files_make_parents(const char *path) {
  char part[PATH_MAX];
  size_t length = strlen(path);
  if (length >= sizeof part) return ENAMETOOLONG;
  memcpy(part, path, length + 1);
  for (size_t i = 1; i < length; i++) {
    if (part[i] != '/' || part[i - 1] == '/' || !part[i + 1]) continue;
    part[i] = 0;
    int error = make_directory(part, 0755);
    if (error && error != EEXIST) return error;
    part[i] = '/';
  }
  return 0;
}

static int write_all(int fd, const uint8_t *bytes, size_t length, uint64_t offset) {
  for (size_t done = 0; done < length;) {
    ssize_t written = pwrite(fd, bytes + done, length - done, (off_t)(offset + done));
    if (written < 0) return errno;
    done += (size_t)written;
  }
  return 0;
}

int files_write(const char *path, uint32_t mode, uint8_t flags, uint64_t offset, struct blob bytes) {
  if (offset > (uint64_t)INT64_MAX - bytes.length) return EFBIG;
  int open_flags = O_WRONLY | O_CREAT | (flags & WRITE_TRUNCATE ? O_TRUNC : 0);
  int fd = files_open_regular(path, open_flags, mode & 07777);
  if (fd < 0 && errno == ENOENT && (flags & WRITE_PARENTS)) {
    int error = files_make_parents(path);
    if (error) return error;
    fd = files_open_regular(path, open_flags, mode & 07777);
  }
  if (fd < 0) return errno;
  int error = write_all(fd, bytes.bytes, bytes.length, offset);
  if (close(fd) != 0 && !error) error = errno;
  return error;
}

int files_mkdir(const char *path, uint32_t mode, bool parents) {
  int error = make_directory(path, mode);
  if (!parents) return error;
  if (error == ENOENT) {
    error = files_make_parents(path);
    if (!error) error = make_directory(path, mode);
  }
  struct stat s;
  return error == EEXIST && stat(path, &s) == 0 && S_ISDIR(s.st_mode) ? 0 : error;
}

static int remove_recursively(void *argument) {
  const char *path = argument;
  uint64_t removed = 0;
  int fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
  if (fd < 0) return errno;
  int error = remove_tree_contents(fd, &removed);
  return error || rmdir(path) == 0 ? error : errno;
}

void files_remove(uint32_t request, const char *path, bool recursive, struct bytes *out) {
  struct stat s;
  int error = 0;
  if (lstat(path, &s) != 0) error = errno;
  else if (!S_ISDIR(s.st_mode)) error = unlink(path) == 0 ? 0 : errno;
  else if (rmdir(path) != 0) error = errno;
  if (recursive && (error == ENOTEMPTY || error == EEXIST)) return worker_start(request, remove_recursively, (void *)path, NULL, out);
  put_reply_head(out, request, error, 0);
}

int files_replace(const char *path, const void *bytes, size_t length, uint32_t mode) {
  if (unlink(path) != 0 && errno != ENOENT) return errno;
  int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, mode);
  if (fd < 0) return errno;
  int error = write_all(fd, bytes, length, 0);
  close(fd);
  return error;
}
