// The ATTRS of a file (section 5 of the draft).
#pragma once
#include <sys/stat.h>

#include "packet.h"

enum { SFTP_ATTR_SIZE = 1, SFTP_ATTR_OWNER = 2, SFTP_ATTR_MODE = 4, SFTP_ATTR_TIMES = 8 };

struct sftp_attributes {
  uint32_t flags;  // which of the following are there
  uint64_t size;
  uint32_t uid, gid, mode, accessed, modified;
};

struct sftp_attributes sftp_read_attributes(struct sftp_reader *r);
void sftp_put_attributes(struct sftp_writer *w, const struct stat *s);
// To the open file, or when `fd` is negative to what the path names; `flags` AT_SYMLINK_NOFOLLOW: to the link itself. All that can be set is; the first errno.
int sftp_apply_attributes(int fd, const char *path, int flags, const struct sftp_attributes *a);
