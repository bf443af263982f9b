#define _GNU_SOURCE
#include "file-work.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "../sftp/sftp.h"
#include "../tree/remove-tree.h"
#include "exec.h"
#include "files.h"
#include "init-world.h"
#include "root.h"

enum { PIECE_BYTES = 64 << 10, LIST_MOST = 10000 };

static uint8_t piece[PIECE_BYTES];

// Sends what `out` holds; an allocation that failed shows here.
static int flush(struct bytes *out) {
  int error = out->failed ? ENOMEM : files_write_all(1, bytes_front(out), bytes_count(out));
  bytes_take(out, bytes_count(out));
  return error;
}

static const char *last_component(const char *path) {
  const char *slash = strrchr(path, '/');
  return slash ? slash + 1 : path;
}

static int do_stat(const char *path) {
  struct bytes out = {0};
  struct stat s;
  if (stat(path, &s) != 0) return errno;
  struct entry entry = files_describe(&s);
  put_entry(&out, last_component(path), &entry);
  return flush(&out);
}

// The first names of a folder by their bytes. However many there are, no more than twice as many as are wanted are held.
struct names {
  char **at;
  size_t count, most;
  bool more;
};

static int compare(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

static void keep_first(struct names *names) {
  qsort(names->at, names->count, sizeof *names->at, compare);
  if (names->count > names->most) names->more = true;
  while (names->count > names->most) free(names->at[--names->count]);
}

static int collect(DIR *dir, struct names *names) {
  const char *last = NULL;
  for (;;) {
    errno = 0;
    const struct dirent *found = readdir(dir);
    if (!found) break;
    if (strcmp(found->d_name, ".") == 0 || strcmp(found->d_name, "..") == 0) continue;
    if (last && strcmp(found->d_name, last) > 0) continue;
    names->at[names->count] = strdup(found->d_name);
    if (!names->at[names->count]) return ENOMEM;
    if (++names->count < 2 * names->most + 1) continue;
    keep_first(names);
    last = names->at[names->count - 1];
  }
  if (errno) return errno;
  keep_first(names);
  return 0;
}

static int do_list(const char *path, uint64_t most) {
  if (most < 1 || most > LIST_MOST) return EINVAL;
  int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  DIR *dir = fd < 0 ? NULL : fdopendir(fd);
  if (!dir) return errno;
  struct names names = {.at = calloc(2 * most + 1, sizeof *names.at), .most = most};
  int error = names.at ? collect(dir, &names) : ENOMEM;
  struct bytes out = {0};
  put_u8(&out, names.more);
  for (size_t i = 0; i < names.count && !error; i++) {
    struct stat s;
    struct entry entry = {.type = 'f'};
    if (fstatat(fd, names.at[i], &s, AT_SYMLINK_NOFOLLOW) == 0) entry = files_describe(&s);
    else if (errno == ENOENT) continue;
    put_entry(&out, names.at[i], &entry);
    if (bytes_count(&out) >= PIECE_BYTES) error = flush(&out);
  }
  return error ? error : flush(&out);
}

static int do_read(const char *path, uint64_t offset, uint64_t most) {
  if (offset > INT64_MAX) return EINVAL;
  int fd = files_open_regular(path);
  if (fd < 0) return errno;
  if (lseek(fd, (off_t)offset, SEEK_SET) < 0) return errno;
  while (most > 0) {
    ssize_t length = read(fd, piece, most < sizeof piece ? most : sizeof piece);
    if (length < 0 && errno == EINTR) continue;
    if (length < 0) return errno;
    if (length == 0) break;
    int error = files_write_all(1, piece, (size_t)length);
    if (error) return error;
    most -= (uint64_t)length;
  }
  return 0;
}

static char temporary[PATH_MAX];
static volatile sig_atomic_t temporary_exists;

// The host gave up: nothing is left behind. Should that hang, the alarm ends it.
static void take_back(int signal) {
  (void)signal;
  alarm(5);
  if (temporary_exists) unlink(temporary);
  _exit(ECANCELED);
}

static void hold_term(bool hold) {
  sigset_t term;
  sigemptyset(&term);
  sigaddset(&term, SIGTERM);
  sigprocmask(hold ? SIG_BLOCK : SIG_UNBLOCK, &term, NULL);
}

static int make_temporary(const char *target) {
  uint64_t random;
  if (getrandom(&random, sizeof random, 0) != sizeof random) return -1;
  int folder = (int)(last_component(target) - target);
  if (snprintf(temporary, sizeof temporary, "%.*s.mags-%016llx", folder, target, (unsigned long long)random) >= (int)sizeof temporary) {
    errno = ENAMETOOLONG;
    return -1;
  }
  hold_term(true);
  int fd = open(temporary, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
  int error = errno;
  temporary_exists = fd >= 0;
  hold_term(false);
  errno = error;
  return fd;
}

// Exactly `length` bytes of input; ECANCELED when it ends before.
static int read_exactly(void *into, size_t length) {
  for (size_t done = 0; done < length;) {
    ssize_t got = read(0, (uint8_t *)into + done, length - done);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return errno;
    if (got == 0) return ECANCELED;
    done += (size_t)got;
  }
  return 0;
}

// The input is pieces, each behind its length; a length of zero says that all of it came. Its mere end does not.
static int copy_pieces(int fd) {
  for (;;) {
    uint8_t head[4];
    int error = read_exactly(head, sizeof head);
    if (error) return error;
    uint32_t length = (uint32_t)head[0] | (uint32_t)head[1] << 8 | (uint32_t)head[2] << 16 | (uint32_t)head[3] << 24;
    if (length == 0) return 0;
    if (length > sizeof piece) return EPROTO;
    error = read_exactly(piece, length);
    if (!error) error = files_write_all(fd, piece, length);
    if (error) return error;
  }
}

static int finish_write(int fd, const char *target, mode_t mode, const struct stat *before) {
  int error = copy_pieces(fd);
  // The owner first: changing it takes the setuid bit away.
  if (!error && before && (before->st_uid != geteuid() || before->st_gid != getegid()) && fchown(fd, before->st_uid, before->st_gid) != 0) error = errno;
  if (!error && fchmod(fd, mode) != 0) error = errno;
  if (close(fd) != 0 && !error) error = errno;
  hold_term(true);
  if (!error && rename(temporary, target) != 0) error = errno;
  if (error) unlink(temporary);
  temporary_exists = false;
  return error;
}

static int do_write(const char *path, uint64_t wanted_mode) {
  static char real[PATH_MAX];
  struct stat s;
  const char *target = path;
  signal(SIGTERM, take_back);
  if (!*last_component(path)) return EISDIR;
  // Through a link, as a program would; one that leads nowhere is replaced.
  if (lstat(path, &s) == 0 && S_ISLNK(s.st_mode)) {
    if (realpath(path, real)) target = real;
    else if (errno != ENOENT) return errno;
  }
  bool exists = lstat(target, &s) == 0;
  if (exists && S_ISLNK(s.st_mode)) exists = false;
  if (exists && !S_ISREG(s.st_mode)) return S_ISDIR(s.st_mode) ? EISDIR : EINVAL;
  int fd = make_temporary(target);
  if (fd < 0 && errno == ENOENT) {
    int error = files_make_parents(target);
    if (error) return error;
    fd = make_temporary(target);
  }
  if (fd < 0) return errno;
  mode_t mode = wanted_mode <= 07777 ? (mode_t)wanted_mode : exists ? s.st_mode & 07777 : 0644;
  return finish_write(fd, target, mode, exists ? &s : NULL);
}

static int do_remove(const char *path, bool recursive) {
  static char clean[PATH_MAX];
  struct stat s;
  size_t length = strlen(path);
  while (length > 1 && path[length - 1] == '/') length--;
  if (length >= sizeof clean) return ENAMETOOLONG;
  memcpy(clean, path, length);
  clean[length] = 0;
  const char *name = last_component(clean);
  // The root, and names of it such as /root/.., are not somebody's to remove.
  if (!*name || strcmp(name, ".") == 0 || strcmp(name, "..") == 0) return EINVAL;
  if (lstat(clean, &s) != 0) return errno;
  if (!S_ISDIR(s.st_mode)) return unlink(clean) == 0 ? 0 : errno;
  if (!recursive) return EISDIR;
  if (rmdir(clean) == 0) return 0;
  if (errno != ENOTEMPTY && errno != EEXIST) return errno;
  uint64_t removed = 0;
  int fd = open(clean, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
  if (fd < 0) return errno;
  int error = remove_tree_contents(fd, &removed);
  return error || rmdir(clean) == 0 ? error : errno;
}

static int work(const struct file_request *request) {
  switch (request->op) {
    case FILE_STAT:
      return do_stat(request->path);
    case FILE_LIST:
      return do_list(request->path, request->first);
    case FILE_READ:
      return do_read(request->path, request->first, request->second);
    case FILE_WRITE:
      return do_write(request->path, request->first);
    case FILE_REMOVE:
      return do_remove(request->path, request->first != 0);
    default:
      prctl(PR_SET_NAME, "sftp-server");
      return sftp_serve(0, 1, request->path);
  }
}

// What a program would get from exec.c, as far as it matters here.
static int prepare(int in, int out) {
  // Whoever holds the other ends of other channels' pipes would keep those open.
  if ((in >= 0 && dup2(in, 0) < 0) || dup2(out, 1) < 0) return errno;
  int fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
  // The kernel may have no reason to spare this one, or not let us say so: both are fine.
  if (fd >= 0 && write(fd, "0", 1) < 0) errno = 0;
  int error = root_enter_for_good();
  syscall(SYS_close_range, 3, ~0U, 0);
  if (!error && chdir("/") != 0) error = errno;
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, NULL);
  return error;
}

void file_work_open(struct channel *ch, const struct file_request *request) {
  int in = -1, out = -1, error = 0;
  bool reads_input = request->op == FILE_WRITE || request->op == FILE_SFTP;
  if ((reads_input && !open_pipe(&ch->in_fd, &in, false)) || !open_pipe(&ch->out[0].fd, &out, true)) error = errno;
  ch->out[1].ended = true;
  if (!error) error = init_world_join();
  pid_t pid = error ? -1 : fork();
  if (pid == 0) {
    setpgid(0, 0);
    error = prepare(in, out);
    _exit(error ? error : work(request));
  }
  if (pid < 0 && !error) error = errno;
  init_world_part();
  if (in >= 0) close(in);
  if (out >= 0) close(out);
  if (error) return channel_fail(ch, error, "files");
  // Both set it: whoever of the two comes first, a signal to the group finds it.
  setpgid(pid, pid);
  ch->state = RUNNING;
  ch->pid = (uint32_t)pid;
}
