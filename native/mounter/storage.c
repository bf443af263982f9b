#define _GNU_SOURCE
#include "storage.h"

#include <dirent.h>
#include <fcntl.h>
#include <linux/loop.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "../tree/narrow-upper.h"
#include "../tree/remove-tree.h"

// So few entries are not worth another request.
enum { SWEPT_AT_ONCE = 64, SWEEPER_NICE = 19 };
enum { LOOP_TRIES = 64, LOOP_MAJOR = 7, COPY_BYTES = 1 << 20 };

static int open_loop(int number) {
  char path[32];
  snprintf(path, sizeof path, "/dev/loop%d", number);
  int fd = open(path, O_RDWR | O_CLOEXEC);
  if (fd >= 0 || errno != ENOENT) return fd;
  // No devtmpfs here.
  if (mknod(path, S_IFBLK | 0600, makedev(LOOP_MAJOR, (unsigned)number)) != 0 && errno != EEXIST) return -1;
  return open(path, O_RDWR | O_CLOEXEC);
}

// loop(4): the device frees itself when its last user, the mount, is gone. Others may take a free one first, then the next is tried.
static int configure_loop(int control, int image, int *number) {
  struct loop_config config = {.fd = (uint32_t)image, .info.lo_flags = LO_FLAGS_AUTOCLEAR};
  for (int i = 0; i < LOOP_TRIES; i++) {
    *number = ioctl(control, LOOP_CTL_GET_FREE);
    if (*number < 0) return -1;
    int loop = open_loop(*number);
    if (loop < 0) return -1;
    if (ioctl(loop, LOOP_CONFIGURE, &config) == 0) return loop;
    int error = errno;
    close(loop);
    errno = error;
    if (error != EBUSY) return -1;
  }
  return -1;
}

// loop(4): the device that has this very file, held open; -1 when there is none. A second device on one file would be a second file system on it, and the end of both.
static int find_loop(const struct stat *image, int *number) {
  DIR *devices = opendir("/sys/block");
  if (!devices) return -1;
  int found = -1;
  for (const struct dirent *entry; found < 0 && (entry = readdir(devices));) {
    char bound[64];
    struct loop_info64 info;
    if (sscanf(entry->d_name, "loop%d", number) != 1) continue;
    snprintf(bound, sizeof bound, "/sys/block/loop%d/loop", *number);
    if (access(bound, F_OK) != 0) continue;
    int loop = open_loop(*number);
    if (loop < 0) continue;
    if (ioctl(loop, LOOP_GET_STATUS64, &info) == 0 && info.lo_device == image->st_dev && info.lo_inode == image->st_ino) found = loop;
    else close(loop);
  }
  closedir(devices);
  return found;
}

struct outcome storage_mount_image(const struct request *request) {
  char device[32];
  int number = -1;
  int image = open(request->path, O_RDWR | O_NOFOLLOW | O_CLOEXEC);
  struct stat identity;
  if (image < 0 || fstat(image, &identity) != 0) return failed("open image");
  int control = open("/dev/loop-control", O_RDWR | O_CLOEXEC);
  if (control < 0) return failed("open /dev/loop-control");
  int loop = find_loop(&identity, &number);
  if (loop < 0) loop = configure_loop(control, image, &number);
  if (loop < 0) return failed("loop device");
  snprintf(device, sizeof device, "/dev/loop%d", number);
  unsigned long flags = MS_NODEV | (request->flags & IMAGE_NOATIME ? MS_NOATIME : 0) | (request->flags & IMAGE_READ_ONLY ? MS_RDONLY : 0);
  if (mount(device, request->second, "ext4", flags, request->flags & IMAGE_DISCARD ? "discard" : "") != 0) return failed("mount image");
  return done((uint64_t)number);
}

struct outcome storage_unmount(const struct request *request) {
  return umount2(request->path, UMOUNT_NOFOLLOW) == 0 ? done(0) : failed("unmount");
}

static int renew_directory(int dir, const char *name, mode_t mode, uint64_t *removed) {
  int fd = openat(dir, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
  if (fd >= 0) {
    int error = remove_tree_contents(fd, removed);
    if (error) return error;
    // The directory itself goes too: its owner, mode and attributes were the sandbox's to change.
    if (unlinkat(dir, name, AT_REMOVEDIR) != 0) return errno;
  } else if (errno != ENOENT) {
    return errno;
  }
  return mkdirat(dir, name, mode) == 0 ? 0 : errno;
}

static bool is_directory(int dir, const char *name) {
  struct stat s;
  return fstatat(dir, name, &s, AT_SYMLINK_NOFOLLOW) == 0 && S_ISDIR(s.st_mode);
}

struct outcome storage_reset_upper(const struct request *request) {
  uint64_t removed = 0;
  umask(0);
  if (mkdir(request->path, 0700) != 0 && errno != EEXIST) return failed("make the upper's directory");
  int dir = open(request->path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
  if (dir < 0) return failed("open upper");
  int error = request->flags & UPPER_KEEP && is_directory(dir, "u") ? 0 : renew_directory(dir, "u", 0755, &removed);
  if (error) return refused(error, "renew u");
  error = renew_directory(dir, "w", 0700, &removed);
  return error ? refused(error, "renew w") : done(removed);
}

static struct outcome sweep(const char *path, uint64_t most) {
  int dir = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
  if (dir < 0) return failed("open upper");
  int error = narrow_sweep(dir, most);
  close(dir);
  return error && error != EAGAIN ? refused(error, "sweep x") : done(error == EAGAIN);
}

struct outcome storage_narrow_upper(const struct request *request) {
  // The work folder first: on a full disk its blocks are those that the rest needs.
  struct request reset = {.path = request->path, .flags = UPPER_KEEP};
  struct outcome outcome = storage_reset_upper(&reset);
  if (outcome.error) return outcome;
  int dir = open(request->path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
  if (dir < 0) return failed("open upper");
  int error = narrow_upper(dir, request->second, request->lowers, request->lower_count);
  close(dir);
  if (error) return refused(error, "narrow u");
  outcome = sweep(request->path, SWEPT_AT_ONCE);
  // What cannot be removed now is out of the way.
  return outcome.error ? done(1) : outcome;
}

struct outcome storage_sweep_upper(const struct request *request) {
  // Behind a job's back.
  setpriority(PRIO_PROCESS, 0, SWEEPER_NICE);
  return sweep(request->path, request->number);
}

int storage_new_memory(void) { return memfd_create("mags-sealed", MFD_CLOEXEC | MFD_ALLOW_SEALING); }

// lseek(2), SEEK_DATA: a template's memory is mostly holes, and they stay holes.
static const char *copy_data(int from, int to, off_t size) {
  char *buffer = malloc(COPY_BYTES);
  if (!buffer) return "memory";
  const char *step = NULL;
  for (off_t at = 0; !step && at < size;) {
    off_t data = lseek(from, at, SEEK_DATA);
    if (data < 0 && errno == ENXIO) break;
    off_t hole = data < 0 ? -1 : lseek(from, data, SEEK_HOLE);
    if (hole < 0) step = "seek";
    for (at = data; !step && at < hole;) {
      size_t most = hole - at < COPY_BYTES ? (size_t)(hole - at) : COPY_BYTES;
      ssize_t length = pread(from, buffer, most, at);
      if (length <= 0) step = "read";
      else if (pwrite(to, buffer, (size_t)length, at) != length) step = "write memory";
      else at += length;
    }
  }
  free(buffer);
  return step;
}

struct outcome storage_seal(const struct request *request, int memory) {
  struct stat s;
  int file = open(request->path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
  if (file < 0 || fstat(file, &s) != 0) return failed("open file");
  if (!S_ISREG(s.st_mode)) return refused(EINVAL, "not a file");
  if (ftruncate(memory, s.st_size) != 0) return failed("size memory");
  const char *step = copy_data(file, memory, s.st_size);
  if (step) return failed(step);
  if (fcntl(memory, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0) return failed("seal");
  return done((uint64_t)memory);
}
