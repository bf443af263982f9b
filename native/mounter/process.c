#define _GNU_SOURCE
#include "process.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

// proc_pid_stat(5): the name in field 2 may hold anything, so fields are counted from the last parenthesis.
static int read_start(int process, uint64_t *start) {
  char text[1024];
  int fd = openat(process, "stat", O_RDONLY | O_CLOEXEC);
  if (fd < 0) return -1;
  ssize_t length = read(fd, text, sizeof text - 1);
  close(fd);
  if (length <= 0) {
    errno = ESRCH;
    return -1;
  }
  text[length] = 0;
  const char *field = strrchr(text, ')');
  for (int number = 2; field && number < 22; number++) {
    field = strchr(field, ' ');
    if (field) field++;
  }
  *start = field ? strtoull(field, NULL, 10) : 0;
  return field ? 0 : -1;
}

int process_open(uint32_t pid, uint64_t start) {
  char path[32];
  uint64_t found;
  snprintf(path, sizeof path, "/proc/%u", pid);
  int process = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
  if (process >= 0 && read_start(process, &found) == 0 && found == start) return process;
  if (process >= 0) close(process);
  errno = ESRCH;
  return -1;
}

int process_open_pidfd(uint32_t pid, uint64_t start) {
  int pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
  if (pidfd < 0) return -1;
  // In this order: what has the pid now, and started then, is what the pidfd stands for.
  int process = process_open(pid, start);
  if (process < 0) {
    close(pidfd);
    errno = ESRCH;
    return -1;
  }
  close(process);
  return pidfd;
}
