#define _GNU_SOURCE
#include "vm-init.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "disk.h"
#include "root.h"

enum { DEVICE_WAIT_MS = 20000 };

static void die(const char *what, int error) {
  int console = open("/dev/console", O_WRONLY | O_NOCTTY);
  dprintf(console < 0 ? 2 : console, "agent: %s: %s\n", what, strerror(error));
  _exit(1);
}

static void mount_system(const char *type, const char *path, const char *options) {
  mkdir(path, 0755);
  // The kernel may have mounted /dev itself.
  if (mount(type, path, type, MS_NOSUID, options) != 0 && errno != EBUSY) die(path, errno);
}

static void load_module(const char *name) {
  char path[256];
  snprintf(path, sizeof path, "/modules/%s", name);
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) die(path, errno);
  if (syscall(SYS_finit_module, fd, "", 0) != 0 && errno != EEXIST) die(path, errno);
  close(fd);
}

// /modules/order has one file name a line, dependencies first.
static void load_modules(void) {
  FILE *order = fopen("/modules/order", "re");
  char line[200];
  if (!order) return;
  while (fgets(line, sizeof line, order)) {
    line[strcspn(line, "\r\n")] = 0;
    if (*line) load_module(line);
  }
  fclose(order);
}

static int open_port(void) {
  DIR *ports = opendir("/sys/class/virtio-ports");
  int port = -1;
  if (!ports) return -1;
  for (const struct dirent *entry; port < 0 && (entry = readdir(ports));) {
    char path[128], name[16] = "";
    if (strncmp(entry->d_name, "vport", 5) != 0 || strlen(entry->d_name) > 32) continue;
    snprintf(path, sizeof path, "/sys/class/virtio-ports/%.32s/name", entry->d_name);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) continue;
    ssize_t length = read(fd, name, sizeof name - 1);
    close(fd);
    if (length < 5 || strcmp(name, "agent\n") != 0) continue;
    snprintf(path, sizeof path, "/dev/%.32s", entry->d_name);
    port = open(path, O_RDWR | O_NONBLOCK | O_CLOEXEC);
  }
  closedir(ports);
  return port;
}

// Devices appear some time after their driver: only here, while booting, time is measured.
static void wait_a_moment(int *waited_ms, const char *what) {
  if ((*waited_ms)++ > DEVICE_WAIT_MS) die(what, ETIMEDOUT);
  nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
}

static void raise_limits(void) {
  struct rlimit files = {1024, 1 << 20};
  setrlimit(RLIMIT_NOFILE, &files);
  int fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
  if (fd < 0 || write(fd, "-1000", 5) != 5) die("oom_score_adj", errno);
  close(fd);
}

int vm_init(void) {
  mount_system("devtmpfs", "/dev", "mode=0755");
  mount_system("proc", "/proc", NULL);
  mount_system("sysfs", "/sys", NULL);
  mount_system("devpts", "/dev/pts", "mode=0620,gid=5,ptmxmode=0666");
  mkdir("/dev/shm", 01777);
  for (int fd = 0; fd < 3; fd++) {
    // dup2 over itself when the kernel gave no console: descriptors below 3 must be taken before anything else is opened.
    if (fcntl(fd, F_GETFD) < 0 && open("/dev/null", O_RDWR) < 0) die("/dev/null", errno);
  }
  const char *links[][2] = {{"/proc/self/fd", "/dev/fd"}, {"/proc/self/fd/0", "/dev/stdin"}, {"/proc/self/fd/1", "/dev/stdout"}, {"/proc/self/fd/2", "/dev/stderr"}};
  for (size_t i = 0; i < sizeof links / sizeof *links; i++) {
    if (symlink(links[i][0], links[i][1]) != 0 && errno != EEXIST) die(links[i][1], errno);
  }
  load_modules();
  raise_limits();
  root_set_vm();

  int waited_ms = 0, port;
  char root[32];
  while (disk_find("root", root) != 0) wait_a_moment(&waited_ms, "no disk has the serial root");
  mkdir("/ro", 0755);
  if (mount(root, "/ro", "erofs", MS_RDONLY, NULL) != 0) die(root, errno);
  int error = root_use("/ro");
  if (error) die("/ro", error);
  while ((port = open_port()) < 0) wait_a_moment(&waited_ms, "no port is named agent");
  return port;
}
