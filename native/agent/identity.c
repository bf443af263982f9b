#define _GNU_SOURCE
#include "identity.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/random.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <unistd.h>

#include "disk.h"
#include "files.h"
#include "interface.h"
#include "root.h"

static int set_clock(uint64_t time_ns) {
  struct timeval now = {.tv_sec = (time_t)(time_ns / 1000000000), .tv_usec = (suseconds_t)(time_ns % 1000000000 / 1000)};
  return settimeofday(&now, NULL) == 0 ? 0 : errno;
}

// random(4): clones of one template draw the same numbers until the generator has been given something of its own and reseeded from it.
static int add_entropy(struct blob entropy) {
  int fd = open("/dev/urandom", O_RDWR | O_CLOEXEC);
  if (fd < 0) return errno;
  struct rand_pool_info *pool = malloc(sizeof *pool + entropy.length);
  int error = pool ? 0 : ENOMEM;
  if (pool) {
    pool->entropy_count = (int)entropy.length * 8;
    pool->buf_size = (int)entropy.length;
    memcpy(pool->buf, entropy.bytes, entropy.length);
    if (ioctl(fd, RNDADDENTROPY, pool) != 0 || ioctl(fd, RNDRESEEDCRNG) != 0) error = errno;
    explicit_bzero(pool->buf, entropy.length);
    free(pool);
  }
  close(fd);
  return error;
}

static int set_hostname(const char *hostname) {
  char current[65] = "";
  if (sethostname(hostname, strlen(hostname)) == 0) return 0;
  int error = errno;
  // A container's runtime has set it already and the agent may not.
  return gethostname(current, sizeof current) == 0 && strcmp(current, hostname) == 0 ? 0 : error;
}

static int write_files(const struct identity *identity) {
  int error = root_enter();
  if (error) return error;
  mkdir("/etc", 0755);
  struct stat etc;
  bool known = lstat("/etc", &etc) == 0;
  char line[66];
  size_t length = strlen(identity->hostname);
  memcpy(line, identity->hostname, length);
  line[length] = '\n';
  const struct {
    const char *path;
    const void *bytes;
    size_t length;
    uint32_t mode;
  } files[] = {
      {"/etc/hostname", line, length ? length + 1 : 0, 0644},
      {"/etc/hosts", identity->hosts.bytes, identity->hosts.length, 0644},
      {"/etc/resolv.conf", identity->resolv_conf.bytes, identity->resolv_conf.length, 0644},
      {"/etc/machine-id", identity->machine_id.bytes, identity->machine_id.length, 0444},
  };
  for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
    int failed = files[i].length ? files_replace(files[i].path, files[i].bytes, files[i].length, files[i].mode) : 0;
    if (!error) error = failed;
  }
  // These files are the machine's, not its workspace's: writing them is no change of the folder either.
  if (known) utimensat(AT_FDCWD, "/etc", (const struct timespec[]){etc.st_atim, etc.st_mtim}, AT_SYMLINK_NOFOLLOW);
  root_leave();
  disk_keep_spare();
  return error;
}

int identity_set(const struct identity *identity) {
  bool vm = root_is_vm();
  bool writes = *identity->hostname || identity->hosts.length || identity->resolv_conf.length || identity->machine_id.length;
  int errors[] = {
      vm && identity->time_ns ? set_clock(identity->time_ns) : 0,
      vm && identity->entropy.length ? add_entropy(identity->entropy) : 0,
      vm && identity->entropy.length ? disk_renew_boot_id() : 0,
      *identity->hostname ? set_hostname(identity->hostname) : 0,
      vm && identity->has_network ? interface_set(&identity->network) : 0,
      vm && identity->has_network6 ? interface_set6(&identity->network6) : 0,
      writes ? write_files(identity) : 0,
  };
  for (size_t i = 0; i < sizeof errors / sizeof *errors; i++) {
    if (errors[i]) return errors[i];
  }
  return 0;
}
