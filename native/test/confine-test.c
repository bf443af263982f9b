// What a confined worker may do, in a build without sanitizers, which would need more calls than the filter lets through. Needs root.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "../layer/confine.h"
#include "check.h"

const char *check_what = "confinement";

static void *run(void *argument) {
  *(int *)argument = 1;
  return NULL;
}

static bool refused(long result) { return result == -1 && errno == EPERM; }

static void try_everything(int outside) {
  // What it needs.
  int ran = 0, file = open("/file", O_WRONLY | O_CREAT | O_EXCL, 0600);
  pthread_t thread;
  CHECK(pthread_create(&thread, NULL, run, &ran) == 0 && pthread_join(thread, NULL) == 0 && ran == 1);
  CHECK(file >= 0 && write(file, "x", 1) == 1 && fchown(file, 1, 1) == 0 && fchmod(file, 04755) == 0 && fsetxattr(file, "user.x", "y", 1, 0) == 0);
  CHECK(mknodat(AT_FDCWD, "whiteout", S_IFCHR, 0) == 0 && mkdirat(AT_FDCWD, "folder", 0700) == 0 && lsetxattr("folder", "trusted.overlay.opaque", "y", 1, 0) == 0);
  // What it does not.
  CHECK(refused(fork()) && refused(vfork()) && refused(syscall(SYS_clone, CLONE_VM | SIGCHLD, 0, 0, 0, 0)));
  CHECK(refused(syscall(SYS_clone, CLONE_VM | CLONE_SIGHAND | CLONE_THREAD | CLONE_NEWNS, 0, 0, 0, 0)) && refused(unshare(CLONE_NEWNS)));
  struct clone_args none = {0};
  CHECK(syscall(SYS_clone3, &none, sizeof none) == -1 && errno == ENOSYS);
  CHECK(refused(execve("/file", (char *[]){(char[]){"file"}, NULL}, NULL)) && refused(mount("none", "/folder", "tmpfs", 0, NULL)) && refused(chroot("folder")));
  CHECK(refused(socket(AF_UNIX, SOCK_STREAM, 0)) && refused(ptrace(PTRACE_TRACEME, 0, 0, 0)) && refused(syscall(SYS_setns, outside, 0)));
  CHECK(refused(syscall(SYS_bpf, 0, NULL, 0)) && refused(syscall(SYS_open_by_handle_at, outside, NULL, 0)) && refused(ioctl(outside, 0)) && refused(kill(getppid(), 0)));
  CHECK(mknodat(AT_FDCWD, "zero", S_IFCHR, makedev(1, 5)) == -1 && errno == EPERM);
  CHECK(openat(AT_FDCWD, "/../../../etc/passwd", O_RDONLY) == -1 && errno == ENOENT);
}

int main(void) {
  char top[] = "/var/tmp/confine-test-XXXXXX", command[80];
  CHECK(mkdtemp(top));
  pid_t child = fork();
  CHECK(child >= 0);
  if (child == 0) {
    int outside = open("/proc/self/ns/mnt", O_RDONLY);
    confine(open(top, O_PATH | O_DIRECTORY));
    try_everything(outside);
    _exit(0);
  }
  int status;
  CHECK(waitpid(child, &status, 0) == child);
  snprintf(command, sizeof command, "rm -rf %s", top);
  CHECK(system(command) == 0 && WIFEXITED(status) && WEXITSTATUS(status) == 0);
  printf("a worker is confined\n");
}
