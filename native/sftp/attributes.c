#define _GNU_SOURCE
#include "attributes.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

static const uint32_t EXTENDED = 0x80000000;

struct sftp_attributes sftp_read_attributes(struct sftp_reader *r) {
  struct sftp_attributes a = {.flags = sftp_read_u32(r)};
  if (a.flags & SFTP_ATTR_SIZE) a.size = sftp_read_u64(r);
  if (a.flags & SFTP_ATTR_OWNER) {
    a.uid = sftp_read_u32(r);
    a.gid = sftp_read_u32(r);
  }
  if (a.flags & SFTP_ATTR_MODE) a.mode = sftp_read_u32(r) & 07777;
  if (a.flags & SFTP_ATTR_TIMES) {
    a.accessed = sftp_read_u32(r);
    a.modified = sftp_read_u32(r);
  }
  // Attributes of others' invention are pairs of strings, and passed over.
  for (uint32_t count = a.flags & EXTENDED ? sftp_read_u32(r) : 0; count > 0 && !r->bad; count--) {
    sftp_read_string(r);
    sftp_read_string(r);
  }
  return a;
}

// The draft's times have 32 bits without a sign.
static uint32_t clamp_time(time_t time) { return time < 0 ? 0 : time > UINT32_MAX ? UINT32_MAX : (uint32_t)time; }

void sftp_put_attributes(struct sftp_writer *w, const struct stat *s) {
  sftp_put_u32(w, SFTP_ATTR_SIZE | SFTP_ATTR_OWNER | SFTP_ATTR_MODE | SFTP_ATTR_TIMES);
  sftp_put_u64(w, (uint64_t)s->st_size);
  sftp_put_u32(w, s->st_uid);
  sftp_put_u32(w, s->st_gid);
  sftp_put_u32(w, s->st_mode);
  sftp_put_u32(w, clamp_time(s->st_atime));
  sftp_put_u32(w, clamp_time(s->st_mtime));
}

static int set_size(int fd, const char *path, int flags, uint64_t size) {
  if (size > INT64_MAX || flags) return EINVAL;
  return (fd >= 0 ? ftruncate(fd, (off_t)size) : truncate(path, (off_t)size)) == 0 ? 0 : errno;
}

int sftp_apply_attributes(int fd, const char *path, int flags, const struct sftp_attributes *a) {
  int error = a->flags & SFTP_ATTR_SIZE ? set_size(fd, path, flags, a->size) : 0;
  // The owner before the mode: changing it takes the setuid bit away. The times last: all else changes them.
  if (a->flags & SFTP_ATTR_OWNER) {
    int failed = fd >= 0 ? fchown(fd, a->uid, a->gid) : fchownat(AT_FDCWD, path, a->uid, a->gid, flags);
    if (failed && !error) error = errno;
  }
  if (a->flags & SFTP_ATTR_MODE) {
    int failed = fd >= 0 ? fchmod(fd, a->mode) : fchmodat(AT_FDCWD, path, a->mode, flags);
    if (failed && !error) error = errno;
  }
  if (a->flags & SFTP_ATTR_TIMES) {
    const struct timespec times[2] = {{.tv_sec = a->accessed}, {.tv_sec = a->modified}};
    int failed = fd >= 0 ? futimens(fd, times) : utimensat(AT_FDCWD, path, times, flags);
    if (failed && !error) error = errno;
  }
  return error;
}
