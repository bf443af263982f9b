#define _GNU_SOURCE
#include "stats.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "process.h"
#include "root.h"

static ssize_t read_text(const char *path, char *text, size_t size) {
  int fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
  if (fd < 0) return -1;
  ssize_t length = read(fd, text, size - 1);
  close(fd);
  text[length > 0 ? length : 0] = 0;
  return length;
}

// proc_meminfo(5): lines of a name, a colon and KiB.
static uint64_t meminfo_bytes(const char *text, const char *name) {
  const char *line = strstr(text, name);
  return line ? strtoull(line + strlen(name), NULL, 10) * 1024 : 0;
}

static bool read_number(const char *path, uint64_t *number) {
  char text[32], *end;
  if (read_text(path, text, sizeof text) <= 0) return false;
  *number = strtoull(text, &end, 10);
  return end != text;  // "max" is no number
}

// A container sees the host's memory in /proc; its own limit is the control group's, where that is mounted (v2, then v1).
static void clamp_to_group(struct stats *stats) {
  static const char *const files[][2] = {
      {"/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"},
      {"/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"},
  };
  for (int version = 0; version < 2; version++) {
    uint64_t limit, used;
    if (!read_number(files[version][0], &limit) || !read_number(files[version][1], &used) || limit >= stats->memory_total) continue;
    stats->memory_total = limit;
    uint64_t left = limit > used ? limit - used : 0;
    if (stats->memory_available > left) stats->memory_available = left;
    return;
  }
}

int stats_read(struct stats *stats) {
  char text[2048];
  struct statvfs disk;
  *stats = (struct stats){0};
  if (read_text("/proc/meminfo", text, sizeof text) < 0) return errno;
  stats->memory_total = meminfo_bytes(text, "MemTotal:");
  stats->memory_available = meminfo_bytes(text, "MemAvailable:");
  if (!root_is_vm()) clamp_to_group(stats);
  stats->processes = process_count();
  int error = root_enter();
  if (error) return error;
  if (statvfs("/", &disk) != 0) error = errno;
  root_leave();
  if (error) return error;
  stats->disk_total = (uint64_t)disk.f_blocks * disk.f_frsize;
  stats->disk_available = (uint64_t)disk.f_bavail * disk.f_frsize;
  return 0;
}
