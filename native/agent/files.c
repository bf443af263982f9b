#define _GNU_SOURCE
#include "files.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

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

int files_open_regular(const char *path) {
  int fd = open(path, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
  if (fd < 0) return -1;
  struct stat s = {0};
  if (fstat(fd, &s) == 0 && S_ISREG(s.st_mode)) return fd;
  close(fd);
  errno = S_ISDIR(s.st_mode) ? EISDIR : EINVAL;
  return -1;
}

int files_make_parents(const char *path) {
  char part[PATH_MAX];
  size_t length = strlen(path);
  if (length >= sizeof part) return ENAMETOOLONG;
  memcpy(part, path, length + 1);
  for (size_t i = 1; i < length; i++) {
    if (part[i] != '/' || part[i - 1] == '/' || !part[i + 1]) continue;
    part[i] = 0;
    if (mkdir(part, 0755) != 0 && errno != EEXIST) return errno;
    part[i] = '/';
  }
  return 0;
}

int files_write_all(int fd, const void *bytes, size_t length) {
  for (size_t done = 0; done < length;) {
    ssize_t written = write(fd, (const uint8_t *)bytes + done, length - done);
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) return errno;
    done += (size_t)written;
  }
  return 0;
}

int files_replace(const char *path, const void *bytes, size_t length, uint32_t mode) {
  if (unlink(path) != 0 && errno != ENOENT) return errno;
  int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, mode);
  if (fd < 0) return errno;
  int error = files_write_all(fd, bytes, length);
  if (close(fd) != 0 && !error) error = errno;
  return error;
}
