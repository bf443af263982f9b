#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "attributes.h"
#include "paths.h"
#include "requests.h"

// Each is in OpenSSH's PROTOCOL, section 4.

static int posix_rename(struct sftp_session *session, uint32_t id, struct sftp_reader *r) {
  static char from[PATH_MAX], to[PATH_MAX];
  (void)session, (void)id;
  int error = sftp_read_path(r, from);
  if (!error) error = sftp_read_path(r, to);
  return error || rename(from, to) == 0 ? error : errno;
}

static int hard_link(struct sftp_session *session, uint32_t id, struct sftp_reader *r) {
  static char from[PATH_MAX], to[PATH_MAX];
  (void)session, (void)id;
  int error = sftp_read_path(r, from);
  if (!error) error = sftp_read_path(r, to);
  return error || link(from, to) == 0 ? error : errno;
}

static int answer_statvfs(struct sftp_session *session, uint32_t id, const struct statvfs *fs) {
  enum { READ_ONLY = 1, NO_SETUID = 2 };
  struct sftp_writer *out = &session->out;
  const uint64_t numbers[] = {fs->f_bsize, fs->f_frsize, fs->f_blocks, fs->f_bfree, fs->f_bavail, fs->f_files, fs->f_ffree, fs->f_favail, fs->f_fsid};
  sftp_begin(out, SFTP_EXTENDED_REPLY, id);
  for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) sftp_put_u64(out, numbers[i]);
  sftp_put_u64(out, (fs->f_flag & ST_RDONLY ? READ_ONLY : 0) | (fs->f_flag & ST_NOSUID ? NO_SETUID : 0));
  sftp_put_u64(out, fs->f_namemax);
  sftp_end(out);
  return SFTP_ANSWERED;
}

static int of_path(struct sftp_session *session, uint32_t id, struct sftp_reader *r) {
  static char path[PATH_MAX];
  struct statvfs fs;
  int error = sftp_read_path(r, path);
  if (error) return error;
  return statvfs(path, &fs) == 0 ? answer_statvfs(session, id, &fs) : errno;
}

static struct sftp_handle *read_handle(struct sftp_session *session, struct sftp_reader *r) {
  struct sftp_string name = sftp_read_string(r);
  return r->bad ? NULL : sftp_handle_find(&session->handles, name);
}

static int of_handle(struct sftp_session *session, uint32_t id, struct sftp_reader *r) {
  struct statvfs fs;
  const struct sftp_handle *handle = read_handle(session, r);
  if (!handle) return r->bad ? SFTP_MALFORMED : EBADF;
  return fstatvfs(handle->fd, &fs) == 0 ? answer_statvfs(session, id, &fs) : errno;
}

static int sync_handle(struct sftp_session *session, uint32_t id, struct sftp_reader *r) {
  (void)id;
  const struct sftp_handle *handle = read_handle(session, r);
  if (!handle) return r->bad ? SFTP_MALFORMED : EBADF;
  return fsync(handle->fd) == 0 ? 0 : errno;
}

static int set_link(struct sftp_session *session, uint32_t id, struct sftp_reader *r) {
  static char path[PATH_MAX];
  (void)session, (void)id;
  int error = sftp_read_path(r, path);
  struct sftp_attributes a = sftp_read_attributes(r);
  if (error || r->bad) return error ? error : SFTP_MALFORMED;
  return sftp_apply_attributes(-1, path, AT_SYMLINK_NOFOLLOW, &a);
}

static int tell_limits(struct sftp_session *session, uint32_t id, struct sftp_reader *r) {
  (void)r;
  sftp_begin(&session->out, SFTP_EXTENDED_REPLY, id);
  sftp_put_u64(&session->out, SFTP_PACKET_MAX);
  sftp_put_u64(&session->out, SFTP_DATA_MAX);
  sftp_put_u64(&session->out, SFTP_DATA_MAX);
  sftp_put_u64(&session->out, SFTP_HANDLES_MAX);
  sftp_end(&session->out);
  return SFTP_ANSWERED;
}

static int expand_path(struct sftp_session *session, uint32_t id, struct sftp_reader *r) {
  static char path[PATH_MAX], real[PATH_MAX];
  int error = sftp_read_path(r, path);
  if (!error) error = sftp_expand(path, session->home, real);
  return error ? error : sftp_answer_path(session, id, real);
}

static const struct {
  const char *name, *version;
  int (*take)(struct sftp_session *session, uint32_t id, struct sftp_reader *r);
} extensions[] = {
    {"posix-rename@openssh.com", "1", posix_rename}, {"statvfs@openssh.com", "2", of_path},      {"fstatvfs@openssh.com", "2", of_handle},
    {"hardlink@openssh.com", "1", hard_link},        {"fsync@openssh.com", "1", sync_handle},    {"lsetstat@openssh.com", "1", set_link},
    {"limits@openssh.com", "1", tell_limits},        {"expand-path@openssh.com", "1", expand_path},
};
enum { EXTENSIONS = sizeof extensions / sizeof *extensions };

int sftp_take_extended(struct sftp_session *session, uint32_t id, struct sftp_reader *r) {
  struct sftp_string name = sftp_read_string(r);
  if (r->bad) return SFTP_MALFORMED;
  for (int i = 0; i < EXTENSIONS; i++) {
    if (sftp_string_is(name, extensions[i].name)) return extensions[i].take(session, id, r);
  }
  return SFTP_UNKNOWN;
}

void sftp_put_extensions(struct sftp_writer *w) {
  for (int i = 0; i < EXTENSIONS; i++) {
    sftp_put_string(w, extensions[i].name);
    sftp_put_string(w, extensions[i].version);
  }
}
