#define _GNU_SOURCE
#include "listen.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

enum { LISTENER = 3, BACKLOG = 16 };

static int fail(const char *what) {
  dprintf(2, "mounter: %s: %s\n", what, strerror(errno));
  return 1;
}

int listen_and_exec(const char *path, char **command) {
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  if (strlen(path) >= sizeof address.sun_path) {
    errno = ENAMETOOLONG;
    return fail(path);
  }
  strcpy(address.sun_path, path);
  if (unlink(path) != 0 && errno != ENOENT) return fail(path);
  int fd = socket(AF_UNIX, SOCK_STREAM, 0);
  if (fd < 0) return fail("socket");
  // bind(2) makes the file with the umask's mode: it is never open to others, not even for a moment.
  umask(0177);
  if (bind(fd, (struct sockaddr *)&address, sizeof address) != 0 || listen(fd, BACKLOG) != 0) return fail(path);
  umask(022);
  if (fd != LISTENER) {
    if (dup2(fd, LISTENER) < 0) return fail("dup2");
    close(fd);
  }
  signal(SIGPIPE, SIG_DFL);
  execvp(command[0], command);
  return fail(command[0]);
}
