#define _GNU_SOURCE
#include "root.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "init-world.h"

#define NOT_INSTRUMENTED __attribute__((no_sanitize("address", "undefined")))

static bool vm, composed;
static int inside = -1, outside = -1;

void root_set_vm(void) {
  vm = true;
  outside = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
}

bool root_is_vm(void) { return vm; }

bool root_is_composed(void) { return composed; }

int root_use(const char *path) {
  int fd = -1;
  if (path) {
    fd = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) return errno;
  }
  if (inside >= 0) close(inside);
  inside = fd;
  composed = path && strcmp(path, "/n") == 0;
  return 0;
}

NOT_INSTRUMENTED static int change_root(void) {
  if (!vm) return 0;
  if (inside < 0) return ENODEV;
  return fchdir(inside) == 0 && chroot(".") == 0 ? 0 : errno;
}

NOT_INSTRUMENTED int root_enter_for_good(void) {
  int error = init_world_enter();
  return error == ENOSYS ? change_root() : error;
}

int root_enter(void) { return change_root(); }

void root_leave(void) {
  // Failing here would leave the agent in a root that users write to; nothing after that could be trusted.
  if (vm && (fchdir(outside) != 0 || chroot(".") != 0)) _exit(70);
}
