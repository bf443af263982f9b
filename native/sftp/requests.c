#define _GNU_SOURCE
#include "requests.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "accounts.h"
#include "attributes.h"
#include "long-name.h"
#include "paths.h"

// Entries of one READDIR answer: with names and lines of the greatest length less than half a packet.
enum { ENTRIES_MAX = 128 };
enum { OPEN_READ = 1, OPEN_WRITE = 2, OPEN_APPEND = 4, OPEN_CREATE = 8, OPEN_TRUNCATE = 16, OPEN_EXCLUSIVE = 32 };

static int failed(int result) { return result == 0 ? 0 : errno; }

int sftp_read_path(struct sftp_reader *r, char path[PATH_MAX]) {
  struct sftp_string string = sftp_read_string(r);
  if (r->bad) return SFTP_MALFORMED;
  if (string.length >= PATH_MAX) return ENAMETOOLONG;
  if (memchr(string.bytes, 0, string.length)) return EINVAL;
  memcpy(path, string.bytes, string.length);
  path[string.length] = 0;
  return 0;
}

static int read_two_paths(struct sftp_reader *r, char one[PATH_MAX], char two[PATH_MAX]) {
  int error = sftp_read_path(r, one);
  return error ? error : sftp_read_path(r, two);
}

// The handle that comes next, or NULL with *error.
static struct sftp_handle *read_handle(struct sftp_session *session, struct sftp_reader *r, int *error) {
  struct sftp_string name = sftp_read_string(r);
  struct sftp_handle *handle = r->bad ? NULL : sftp_handle_find(&session->handles, name);
  *error = r->bad ? SFTP_MALFORMED : handle ? 0 : EBADF;
  return handle;
}

static int answer_handle(struct sftp_session *session, uint32_t id, struct sftp_handle *handle) {
  sftp_begin(&session->out, SFTP_HANDLE, id);
  sftp_handle_name(&session->handles, handle, &session->out);
  sftp_end(&session->out);
  return SFTP_ANSWERED;
}

static int answer_attributes(struct sftp_session *session, uint32_t id, const struct stat *s) {
  sftp_begin(&session->out, SFTP_ATTRS, id);
  sftp_put_attributes(&session->out, s);
  sftp_end(&session->out);
  return SFTP_ANSWERED;
}

int sftp_answer_path(struct sftp_session *session, uint32_t id, const char *path) {
  sftp_begin(&session->out, SFTP_NAME, id);
  sftp_put_u32(&session->out, 1);
  sftp_put_string(&session->out, path);
  sftp_put_string(&session->out, path);
  sftp_put_u32(&session->out, 0);
  sftp_end(&session->out);
  return SFTP_ANSWERED;
}

static int open_flags(uint32_t wanted) {
  // A fifo or a terminal must not hold up the session, nor become its terminal.
  int flags = O_NONBLOCK | O_NOCTTY | O_CLOEXEC;
  flags |= !(wanted & OPEN_WRITE) ? O_RDONLY : wanted & OPEN_READ ? O_RDWR : O_WRONLY;
  if (wanted & OPEN_APPEND) flags |= O_APPEND;
  if (wanted & OPEN_CREATE) flags |= O_CREAT;
  if ((wanted & OPEN_TRUNCATE) && (wanted & OPEN_WRITE)) flags |= O_TRUNC;
  if ((wanted & OPEN_CREATE) && (wanted & OPEN_EXCLUSIVE)) flags |= O_EXCL;
  return flags;
}

static int take_open(struct sftp_session *session, uint32_t id, struct sftp_reader *r) {
  static char path[PATH_MAX];
  int error = sftp_read_path(r, path);
  uint32_t wanted = sftp_read_u32(r);
  struct sftp_attributes a = sftp_read_attributes(r);
  if (error || r->bad) return error ? error : SFTP_MALFORMED;
  struct sftp_handle *handle = sftp_handle_free(&session->handles);
  if (!handle) return EMFILE;
  mode_t mode = a.flags & SFTP_ATTR_MODE ? a.mode : 0666;
  int flags = open_flags(wanted), fd = -1;
  // Size, owner and times are for a file that this creates; the mode already went along.
  a.flags &= SFTP_ATTR_SIZE | SFTP_ATTR_OWNER | SFTP_ATTR_TIMES;
  bool created = false;
  if (a.flags && (flags & O_CREAT)) {
    fd = open(path, flags | O_EXCL, mode);
    created = fd >= 0;
  }
  if (fd < 0) fd = open(path, flags, mode);
  if (fd < 0) return errno;
  error = created ? sftp_apply_attributes(fd, NULL, 0, &a) : 0;
  if (error) {
    close(fd);
    return error;
  }
  handle->fd = fd;
  return answer_handle(session, id, handle);
}

static int take_close(struct sftp_session *session, uint32_t id, struct sftp_reader *r) {
  (void)id;
  int error;
  struct sftp_handle *handle = read_handle(session, r, &error);
  return handle ? sftp_handle_close(handle) : error;
}

static int take_read(struct sftp_session *session, uint32_t id, struct sftp_reader *r) {
  int error;
  struct sftp_handle *handle = read_handle(session, r, &error);
  uint64_t offset = sftp_read_u64(r);
  uint32_t length = sftp_read_u32(r);
  if (r->bad || !handle) return r->bad ? SFTP_MALFORMED : error;
  if (offset > INT64_MAX) return EINVAL;
  if (length > SFTP_DATA_MAX) length = SFTP_DATA_MAX;
  struct sftp_writer *out = &session->out;
  sftp_begin(out, SFTP_DATA, id);
  size_t count_at = out->used;
  sftp_put_u32(out, 0);
  uint8_t *into = sftp_reserve(out, length);
  ssize_t got;
  do got = into ? pread(handle->fd, into, length, (off_t)offset) : 0;
  while (got < 0 && errno == EINTR);
  error = errno;
  if (got < 0 || (got == 0 && length > 0)) {
    out->used = out->packet;
    return got < 0 ? error : SFTP_AT_END;
  }
  sftp_filled(out, (size_t)got);
  sftp_patch_u32(out, count_at, (uint32_t)got);
  sftp_end(out);
  return SFTP_ANSWERED;
}

static int take_write(struct sftp_session *session, uint32_t id, struct sftp_reader *r) {
  (void)id;
  int error;
  struct sftp_handle *handle = read_handle(session, r, &error);
  uint64_t offset = sftp_read_u64(r);
  struct sftp_string data = sftp_read_string(r);
  if (r->bad || !handle) return r->bad ? SFTP_MALFORMED : error;
  if (offset > (uint64_t)INT64_MAX - data.length) return EFBIG;
  // To a file opened for appending, Linux appends wherever this says (pwrite(2)).
  for (uint32_t done = 0; done < data.length;) {
    ssize_t wrote = pwrite(handle->fd, data.bytes + done, data.length - done, (off_t)(offset + done));
    if (wrote < 0 && errno == EINTR) continue;
    if (wrote < 0) return errno;
    if (wrote == 0) return EIO;
    done += (uint32_t)wrote;
  }
  return 0;
}

static int take_stat(struct sftp_session *session, uint32_t id, struct sftp_reader *r) {
  static char path[PATH_MAX];
  struct stat s;
  int error = sftp_read_path(r, path);
  if (!error) error = failed(stat(path, &s));
  return error ? error : answer_attributes(session, id, &s);
}

static int take_lstat(struct sftp_session *session, uint32_t id, struct sftp_reader *r) {
  static char path[PATH_MAX];
  struct stat s;
  int error = sftp_read_path(r, path);
  if (!error) error = failed(lstat(path, &s));
  return error ? error : answer_attributes(session, id, &s);
}

static int take_fstat(struct sftp_session *session, uint32_t id, struct sftp_reader *r) {
  struct stat s;
  int error;
  struct sftp_handle *handle = read_handle(session, r, &error);
  if (handle) error = failed(fstat(handle->fd, &s));
  return error ? error : answer_attributes(session, id, &s);
}

static int take_setstat(struct sftp_session *session, uint32_t id, struct sftp_reader *r) {
  static char path[PATH_MAX];
  (void)session, (void)id;
  int error = sftp_read_path(r, path);
  struct sftp_attributes a = sftp_read_attributes(r);
  if (error || r->bad) return error ? error : SFTP_MALFORMED;
  return sftp_apply_attributes(-1, path, 0, &a);
}

static int take_fsetstat(struct sftp_session *session, uint32_t id, struct sftp_reader *r) {
  (void)id;
  int error;
  struct sftp_handle *handle = read_handle(session, r, &error);
  struct sftp_attributes a = sftp_read_attributes(r);
  if (r->bad || !handle) return r->bad ? SFTP_MALFORMED : error;
  return sftp_apply_attributes(handle->fd, NULL, 0, &a);
}

static int take_opendir(struct sftp_session *session, uint32_t id, struct sftp_reader *r) {
  static char path[PATH_MAX];
  int error = sftp_read_path(r, path);
  if (error) return error;
  struct sftp_handle *handle = sftp_handle_free(&session->handles);
  if (!handle) return EMFILE;
  int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return errno;
  handle->dir = fdopendir(fd);
  if (!handle->dir) {
    error = errno;
    close(fd);
    return error;
  }
  handle->fd = fd;
  accounts_forget();
  return answer_handle(session, id, handle);
}

static void put_entry(struct sftp_writer *out, int dir, const char *name, time_t now) {
  char line[LONG_NAME_BYTES];
  struct stat s;
  bool known = fstatat(dir, name, &s, AT_SYMLINK_NOFOLLOW) == 0;
  if (known) long_name(line, name, &s, now);
  sftp_put_string(out, name);
  sftp_put_string(out, known ? line : name);
  if (known) sftp_put_attributes(out, &s);
  else sftp_put_u32(out, 0);
}

static int take_readdir(struct sftp_session *session, uint32_t id, struct sftp_reader *r) {
  int error;
  struct sftp_handle *handle = read_handle(session, r, &error);
  if (!handle) return error;
  if (!handle->dir) return ENOTDIR;
  struct sftp_writer *out = &session->out;
  sftp_begin(out, SFTP_NAME, id);
  size_t count_at = out->used;
  sftp_put_u32(out, 0);
  uint32_t count = 0;
  time_t now = time(NULL);
  while (count < ENTRIES_MAX) {
    errno = 0;
    const struct dirent *found = readdir(handle->dir);
    if (!found) break;
    put_entry(out, handle->fd, found->d_name, now);
    count++;
  }
  error = errno;
  if (count == 0) {
    out->used = out->packet;
    return error ? error : SFTP_AT_END;
  }
  sftp_patch_u32(out, count_at, count);
  sftp_end(out);
  return SFTP_ANSWERED;
}

static int take_remove(struct sftp_session *session, uint32_t id, struct sftp_reader *r) {
  static char path[PATH_MAX];
  (void)session, (void)id;
  int error = sftp_read_path(r, path);
  return error ? error : failed(unlink(path));
}

static int take_mkdir(struct sftp_session *session, uint32_t id, struct sftp_reader *r) {
  static char path[PATH_MAX];
  (void)session, (void)id;
  int error = sftp_read_path(r, path);
  struct sftp_attributes a = sftp_read_attributes(r);
  if (error || r->bad) return error ? error : SFTP_MALFORMED;
  return failed(mkdir(path, a.flags & SFTP_ATTR_MODE ? a.mode : 0777));
}

static int take_rmdir(struct sftp_session *session, uint32_t id, struct sftp_reader *r) {
  static char path[PATH_MAX];
  (void)session, (void)id;
  int error = sftp_read_path(r, path);
  return error ? error : failed(rmdir(path));
}

static int take_realpath(struct sftp_session *session, uint32_t id, struct sftp_reader *r) {
  static char path[PATH_MAX], real[PATH_MAX];
  int error = sftp_read_path(r, path);
  if (!error) error = sftp_resolve(path, real);
  return error ? error : sftp_answer_path(session, id, real);
}

// The draft's rename replaces nothing.
static int take_rename(struct sftp_session *session, uint32_t id, struct sftp_reader *r) {
  static char from[PATH_MAX], to[PATH_MAX];
  (void)session, (void)id;
  struct stat s;
  int error = read_two_paths(r, from, to);
  if (error) return error;
  if (renameat2(AT_FDCWD, from, AT_FDCWD, to, RENAME_NOREPLACE) == 0) return 0;
  // File systems that do not know the flag.
  if (errno != EINVAL && errno != ENOSYS) return errno;
  if (lstat(to, &s) == 0) return EEXIST;
  return failed(rename(from, to));
}

static int take_readlink(struct sftp_session *session, uint32_t id, struct sftp_reader *r) {
  static char path[PATH_MAX], target[PATH_MAX];
  int error = sftp_read_path(r, path);
  if (error) return error;
  ssize_t length = readlink(path, target, sizeof target - 1);
  if (length < 0) return errno;
  target[length] = 0;
  return sftp_answer_path(session, id, target);
}

// Target and then link, as OpenSSH and thereby everybody has it; the draft has it the other way round.
static int take_symlink(struct sftp_session *session, uint32_t id, struct sftp_reader *r) {
  static char target[PATH_MAX], path[PATH_MAX];
  (void)session, (void)id;
  int error = read_two_paths(r, target, path);
  return error ? error : failed(symlink(target, path));
}

static enum sftp_status status_of(int outcome) {
  switch (outcome) {
    case 0: return SFTP_OK;
    case SFTP_AT_END: return SFTP_EOF;
    case SFTP_MALFORMED: return SFTP_BAD_MESSAGE;
    case SFTP_UNKNOWN:
    case ENOSYS:
    case EOPNOTSUPP: return SFTP_OP_UNSUPPORTED;
    case ENOENT:
    case ENOTDIR:
    case ELOOP: return SFTP_NO_SUCH_FILE;
    case EPERM:
    case EACCES:
    case EROFS: return SFTP_PERMISSION_DENIED;
    default: return SFTP_FAILURE;
  }
}

static const char *words_of(int outcome) {
  switch (outcome) {
    case 0: return "Success";
    case SFTP_AT_END: return "End of file";
    case SFTP_MALFORMED: return "Bad message";
    case SFTP_UNKNOWN: return "Operation unsupported";
    default: return strerror(outcome);
  }
}

static void answer_status(struct sftp_writer *out, uint32_t id, int outcome) {
  sftp_begin(out, SFTP_STATUS, id);
  sftp_put_u32(out, status_of(outcome));
  sftp_put_string(out, words_of(outcome));
  sftp_put_string(out, "");
  sftp_end(out);
}

static int carry_out(struct sftp_session *session, uint8_t type, uint32_t id, struct sftp_reader *r) {
  switch (type) {
    case SFTP_OPEN: return take_open(session, id, r);
    case SFTP_CLOSE: return take_close(session, id, r);
    case SFTP_READ: return take_read(session, id, r);
    case SFTP_WRITE: return take_write(session, id, r);
    case SFTP_LSTAT: return take_lstat(session, id, r);
    case SFTP_FSTAT: return take_fstat(session, id, r);
    case SFTP_SETSTAT: return take_setstat(session, id, r);
    case SFTP_FSETSTAT: return take_fsetstat(session, id, r);
    case SFTP_OPENDIR: return take_opendir(session, id, r);
    case SFTP_READDIR: return take_readdir(session, id, r);
    case SFTP_REMOVE: return take_remove(session, id, r);
    case SFTP_MKDIR: return take_mkdir(session, id, r);
    case SFTP_RMDIR: return take_rmdir(session, id, r);
    case SFTP_REALPATH: return take_realpath(session, id, r);
    case SFTP_STAT: return take_stat(session, id, r);
    case SFTP_RENAME: return take_rename(session, id, r);
    case SFTP_READLINK: return take_readlink(session, id, r);
    case SFTP_SYMLINK: return take_symlink(session, id, r);
    case SFTP_EXTENDED: return sftp_take_extended(session, id, r);
    default: return SFTP_UNKNOWN;
  }
}

bool sftp_take(struct sftp_session *session, const uint8_t *packet, size_t length) {
  struct sftp_reader r = {packet, packet + length, false};
  uint8_t type = sftp_read_u8(&r);
  // Of an INIT this is the client's version; everything else has its number here.
  uint32_t id = sftp_read_u32(&r);
  if (r.bad || session->greeted == (type == SFTP_INIT)) return false;
  if (type == SFTP_INIT) {
    session->greeted = true;
    // The version is where other answers have the request's number.
    sftp_begin(&session->out, SFTP_VERSION, 3);
    sftp_put_extensions(&session->out);
    return sftp_end(&session->out);
  }
  int outcome = carry_out(session, type, id, &r);
  if (outcome != SFTP_ANSWERED) answer_status(&session->out, id, outcome);
  return true;
}
