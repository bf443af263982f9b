#define _GNU_SOURCE
#include "disk.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../tree/narrow-upper.h"
#include "codec.h"
#include "files.h"
#include "layer-dial.h"
#include "root.h"
#include "worker.h"

#define BOOT_ID_FILE "/boot_id"
// Blocks that the next machine on this disk needs to begin with; outside of the upper layer, so no part of anything that is saved.
#define SPARE "/ws/spare"
enum { SPARE_BYTES = 128 << 10 };
#define BOOT_ID_SHOWN "/n/proc/sys/kernel/random/boot_id"

static bool attached, frozen, boot_id_shown;
static char device[32];

bool disk_is_frozen(void) { return frozen; }

int disk_find(const char *serial, char found[32]) {
  DIR *block = opendir("/sys/block");
  if (!block) return errno;
  int error = ENODEV;
  for (const struct dirent *entry; error && (entry = readdir(block));) {
    char path[64], text[64] = "";
    if (strncmp(entry->d_name, "vd", 2) != 0 || strlen(entry->d_name) > 8) continue;
    snprintf(path, sizeof path, "/sys/block/%.8s/serial", entry->d_name);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t length = fd < 0 ? -1 : read(fd, text, sizeof text - 1);
    if (fd >= 0) close(fd);
    if (length < 0 || strlen(serial) != (size_t)length || memcmp(text, serial, (size_t)length) != 0) continue;
    snprintf(found, 32, "/dev/%.8s", entry->d_name);
    error = 0;
  }
  closedir(block);
  return error;
}

// ext4(5) keeps its superblock at byte 1024: magic 0xEF53 at 0x38, UUID at 0x68.
static int check_superblock(const char *path, const uint8_t uuid[16]) {
  uint8_t block[1024];
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) return errno;
  // The disk behind the device has been exchanged: what the kernel remembers of the old one must go.
  int error = ioctl(fd, BLKFLSBUF, 0) != 0 || pread(fd, block, sizeof block, 1024) != sizeof block ? EIO : 0;
  close(fd);
  if (error) return error;
  if (block[0x38] != 0x53 || block[0x39] != 0xEF) return EINVAL;
  return memcmp(block + 0x68, uuid, 16) == 0 ? 0 : ESTALE;
}

// A superblock still alive from an earlier disk would be mounted in place of the new one, and "succeed". The kernel's fsid is the two halves of the
// UUID it mounted, joined by exclusive or.
static int check_mounted(const uint8_t uuid[16]) {
  struct statfs fs;
  uint64_t halves[2], shown;
  if (statfs("/ws", &fs) != 0) return errno;
  memcpy(halves, uuid, 16);
  memcpy(&shown, &fs.f_fsid, 8);
  return (halves[0] ^ halves[1]) == shown ? 0 : ESTALE;
}

static int make_directory(const char *path, mode_t mode) { return mkdir(path, mode) == 0 || errno == EEXIST ? 0 : errno; }

static int mount_at(const char *source, const char *path, const char *type, unsigned long flags, const char *options) {
  int error = make_directory(path, 0755);
  if (error) return error;
  return mount(source, path, type, flags, options) == 0 ? 0 : errno;
}

static int show_boot_id(void) {
  if (!attached || boot_id_shown || access(BOOT_ID_FILE, F_OK) != 0) return 0;
  if (mount(BOOT_ID_FILE, BOOT_ID_SHOWN, NULL, MS_BIND, NULL) != 0) return errno;
  boot_id_shown = true;
  return 0;
}

int disk_renew_boot_id(void) {
  uint8_t id[16];
  char text[40];
  if (getrandom(id, sizeof id, GRND_NONBLOCK) != sizeof id) return errno;
  id[6] = (uint8_t)((id[6] & 0x0f) | 0x40);
  id[8] = (uint8_t)((id[8] & 0x3f) | 0x80);
  int length = snprintf(text, sizeof text, "%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x\n", id[0], id[1], id[2], id[3], id[4], id[5], id[6],
                        id[7], id[8], id[9], id[10], id[11], id[12], id[13], id[14], id[15]);
  // Written in place: a file already shown changes with it.
  int fd = open(BOOT_ID_FILE, O_WRONLY | O_CREAT | O_CLOEXEC, 0444);
  if (fd < 0) return errno;
  int error = pwrite(fd, text, (size_t)length, 0) == length ? 0 : EIO;
  close(fd);
  return error ? error : show_boot_id();
}

// A path as /proc/self/mountinfo has it: blanks and backslashes in octal.
static void unescape(char *path) {
  char *to = path;
  for (const char *from = path; *from; to++) {
    if (from[0] == '\\' && from[1] && from[2] && from[3]) {
      *to = (char)((from[1] - '0') << 6 | (from[2] - '0') << 3 | (from[3] - '0'));
      from += 4;
    } else {
      *to = *from++;
    }
  }
  *to = 0;
}

// Whatever is mounted last below /n or at /ws; users of the machine may have added mounts. False when nothing is left.
static bool last_mount(char path[4096]) {
  FILE *info = fopen("/proc/self/mountinfo", "re");
  char *line = NULL;
  size_t size = 0;
  bool found = false;
  while (info && getline(&line, &size, info) > 0) {
    char at[4096];
    if (sscanf(line, "%*s %*s %*s %*s %4095s", at) != 1) continue;
    if (strcmp(at, "/ws") != 0 && strcmp(at, "/n") != 0 && strncmp(at, "/n/", 3) != 0) continue;
    strcpy(path, at);
    found = true;
  }
  free(line);
  if (info) fclose(info);
  unescape(path);
  return found;
}

static int unmount_all(void) {
  char path[4096];
  root_use("/ro");
  boot_id_shown = attached = false;
  while (last_mount(path)) {
    if (umount2(path, UMOUNT_NOFOLLOW) != 0) return errno;
  }
  return 0;
}

static int flush_device(void) {
  int fd = open(device, O_RDONLY | O_CLOEXEC);
  if (fd < 0) return errno;
  int error = ioctl(fd, BLKFLSBUF, 0) == 0 ? 0 : errno;
  close(fd);
  return error;
}

// A container that had the disk before mounted it `volatile`: that mark would make the mount fail (overlayfs, "Volatile mount"). It warns of what a
// crash may have left, and a disk is only lent after a clean unmount; after a crash of the machine the host discards it.
static void forget_volatile(void) {
  // Step by step, no link followed: what wrote this disk may have put anything there.
  static const char *const steps[] = {"/ws/w", "work", "incompat", "volatile"};
  int dir = AT_FDCWD, above = -1;
  for (int i = 0; i < 4; i++) {
    int next = openat(dir, steps[i], O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (above >= 0) close(above);
    above = dir == AT_FDCWD ? -1 : dir;
    dir = next;
    if (dir < 0) break;
  }
  if (dir >= 0) {
    unlinkat(dir, "dirty", 0);
    unlinkat(above, "volatile", AT_REMOVEDIR);
    close(dir);
  }
  if (above >= 0) close(above);
}

void disk_keep_spare(void) {
  if (!attached || access(SPARE, F_OK) == 0) return;
  int fd = open(SPARE, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
  if (fd < 0) return;
  for (off_t size = SPARE_BYTES; size >= SPARE_BYTES / 16 && fallocate(fd, 0, 0, size) != 0; size /= 2) {
  }
  close(fd);
}

// So few entries are not worth a process.
enum { SWEPT_AT_ONCE = 64 };
// A pidfd, for who reaps it knows nothing of it.
static int sweeper = -1;
static pid_t sweeper_pid;

// Removes what was taken out of the layer, behind the job's back: nothing of it can be seen any more.
static void start_sweeper(void) {
  int dir = open("/ws", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (dir < 0) return;
  sweeper_pid = narrow_sweep(dir, SWEPT_AT_ONCE) == EAGAIN ? fork() : -1;
  if (sweeper_pid == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    // The host's wire, and what belongs to programs.
    if (dup2(dir, 3) != 3) _exit(1);
    syscall(SYS_close_range, 4, ~0U, 0);
    _exit(narrow_sweep(3, UINT64_MAX));
  }
  if (sweeper_pid > 0) sweeper = (int)syscall(SYS_pidfd_open, sweeper_pid, 0);
  close(dir);
}

static void end_sweeper(void) {
  if (sweeper < 0) return;
  syscall(SYS_pidfd_send_signal, sweeper, SIGKILL, NULL, 0);
  waitpid(sweeper_pid, NULL, 0);
  close(sweeper);
  sweeper = -1;
}

static int narrow(const char *scope) {
  static const char *const lowers[] = {"/ro"};
  if (!narrow_name_good(scope)) return EINVAL;
  int dir = open("/ws", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (dir < 0) return errno;
  int error = narrow_upper(dir, scope, lowers, 1);
  close(dir);
  return error;
}

static int compose(const uint8_t uuid[16], const char *scope) {
  const unsigned long closed = MS_NOSUID | MS_NODEV;
  int error = check_superblock(device, uuid);
  if (!error) error = mount_at(device, "/ws", "ext4", MS_NOATIME, "");
  if (!error) error = check_mounted(uuid);
  if (!error) error = make_directory("/ws/u", 0755);
  if (!error) error = make_directory("/ws/w", 0755);
  if (!error) forget_volatile();
  // On a disk without a free block overlay cannot make its work folder, and mounts read-only.
  if (!error) unlink(SPARE);
  if (!error && scope) error = narrow(scope);
  if (!error) error = mount_at("overlay", "/n", "overlay", 0, "lowerdir=/ro,upperdir=/ws/u,workdir=/ws/w");
  if (!error) error = mount_at("proc", "/n/proc", "proc", closed | MS_NOEXEC, NULL);
  if (!error) error = mount_at("sysfs", "/n/sys", "sysfs", closed | MS_NOEXEC, NULL);
  if (!error) error = mount_at("/dev", "/n/dev", NULL, MS_BIND | MS_REC, NULL);
  if (!error) error = mount_at("tmpfs", "/n/dev/shm", "tmpfs", closed, "mode=1777");
  if (!error) error = mount_at("tmpfs", "/n/run", "tmpfs", closed, "mode=0755");
  return error ? error : root_use("/n");
}

int disk_attach(const char *serial, const uint8_t uuid[16], const char *scope) {
  if (attached) return EALREADY;
  int error = disk_find(serial, device);
  if (error) return error;
  error = compose(uuid, scope);
  if (error) {
    unmount_all();
    flush_device();
    return error;
  }
  attached = true;
  if (scope) start_sweeper();
  return show_boot_id();
}

int disk_detach(void) {
  if (!attached) return EINVAL;
  if (frozen) return EBUSY;
  layer_dial_end_all();
  end_sweeper();
  int error = unmount_all();
  // Half unmounted is still attached: the host may end what holds on and ask again.
  if (error) attached = true;
  return error ? error : flush_device();
}

static int freeze(void *unused) {
  (void)unused;
  int fd = open("/ws", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  return fd >= 0 && ioctl(fd, FIFREEZE, 0) == 0 ? 0 : errno;
}

static void freeze_ended(int error) { frozen = error == 0; }

void disk_freeze(uint32_t request, struct bytes *out) {
  if (!attached || frozen) return put_reply_head(out, request, attached ? EBUSY : EINVAL, 0);
  // Until the worker tells otherwise: nothing may be written from now on.
  frozen = true;
  worker_start(request, freeze, NULL, freeze_ended, out);
}

int disk_thaw(void) {
  if (!frozen) return EINVAL;
  int fd = open("/ws", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  int error = fd >= 0 && ioctl(fd, FITHAW, 0) == 0 ? 0 : errno;
  if (fd >= 0) close(fd);
  if (!error) frozen = false;
  return error;
}
