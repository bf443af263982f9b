#define _GNU_SOURCE
#include "confine.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/openat2.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <stddef.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

// Two walks at once, each with one descriptor a level, and paths of 4,095 bytes have 2,048 levels at most.
enum { FILES_MAX = 2 * 2048 + 256 };
// 2,000,000 entries with the longest names, twice while a second walk is compared with the first.
#define MEMORY_MAX ((rlim_t)2 << 30)

int confine_descriptors(int connection, int directory) {
  // Out of the way of 0 to 2 first.
  connection = fcntl(connection, F_DUPFD, 3);
  if (directory >= 0) directory = fcntl(directory, F_DUPFD, 3);
  int null = open("/dev/null", O_RDWR);
  if (connection < 0 || null < 0 || dup2(connection, 0) < 0 || dup2(null, 1) < 0 || dup2(null, 2) < 0) _exit(1);
  if (directory >= 0 && dup2(directory, 3) < 0) _exit(1);
  syscall(SYS_close_range, directory >= 0 ? 4 : 3, ~0U, 0);
  return directory >= 0 ? 3 : -1;
}

int confine_open(struct span folder) {
  char path[4096];
  memcpy(path, folder.bytes, folder.length);
  path[folder.length] = 0;
  struct open_how how = {.flags = O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC, .resolve = RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS};
  int outer = (int)syscall(SYS_openat2, AT_FDCWD, path, &how, sizeof how);
  if (outer < 0) wire_fail(errno, "open the folder", folder);
  int directory = openat(outer, "u", O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
  if (directory < 0) wire_fail(errno, "open u of the folder", folder);
  close(outer);
  return directory;
}

// To change owners, to read, write and search everything, to change what others own and keep set-group-id bits, to give files capabilities, and trusted.*
// attributes. Whiteouts need none. Not CAP_SYS_CHROOT, nor CAP_DAC_READ_SEARCH, which opens files by handle.
static const uint64_t KEPT = 1ULL << CAP_CHOWN | 1ULL << CAP_DAC_OVERRIDE | 1ULL << CAP_FOWNER | 1ULL << CAP_FSETID | 1ULL << CAP_SETFCAP | 1ULL << CAP_SYS_ADMIN;

static bool drop_capabilities(void) {
  for (int capability = 0; capability < 64; capability++) {
    if (KEPT >> capability & 1) continue;
    // EINVAL: past the last one this kernel knows.
    if (prctl(PR_CAPBSET_DROP, capability, 0, 0, 0) != 0 && errno != EINVAL) return false;
  }
  if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) != 0) return false;
  struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
  struct __user_cap_data_struct now[2], data[2];
  if (syscall(SYS_capget, &header, now) != 0) return false;
  for (int i = 0; i < 2; i++) {
    uint32_t kept = (uint32_t)(KEPT >> 32 * i) & now[i].permitted;
    data[i] = (struct __user_cap_data_struct){.effective = kept, .permitted = kept};
  }
  return syscall(SYS_capset, &header, data) == 0;
}

#if defined(__x86_64__)
#define THIS_ARCHITECTURE AUDIT_ARCH_X86_64
#elif defined(__aarch64__)
#define THIS_ARCHITECTURE AUDIT_ARCH_AARCH64
#else
#error "the filter of system calls does not know this processor"
#endif

#ifndef __NR_fchmodat2
#define __NR_fchmodat2 452
#endif
#define NEW_NAMESPACES (CLONE_NEWNS | CLONE_NEWCGROUP | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWNET)
#define ALLOW(name) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, __NR_##name, 0, 1), BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)

// CAP_SYS_ADMIN opens far more than trusted.* attributes; none of the calls that use it are here. Nor are execve, mount, setns, chroot, socket, ptrace.
static bool filter_calls(void) {
#ifdef __SANITIZE_ADDRESS__
  return true;  // the sanitizers' run-time has needs of its own
#else
  struct sock_filter filter[] = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, arch)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, THIS_ARCHITECTURE, 1, 0),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
      // The wire.
      ALLOW(read), ALLOW(write), ALLOW(shutdown),
      // Looking.
      ALLOW(newfstatat), ALLOW(fstat), ALLOW(openat), ALLOW(close), ALLOW(getdents64), ALLOW(fchdir), ALLOW(readlinkat), ALLOW(llistxattr), ALLOW(lgetxattr),
      ALLOW(lseek), ALLOW(pread64), ALLOW(sync_file_range), ALLOW(openat2), ALLOW(fcntl),
      // Making.
      ALLOW(pwrite64), ALLOW(ftruncate), ALLOW(mkdirat), ALLOW(mknodat), ALLOW(symlinkat), ALLOW(linkat), ALLOW(fchown), ALLOW(fchownat), ALLOW(fchmod),
      ALLOW(fchmodat), ALLOW(fchmodat2), ALLOW(fsetxattr), ALLOW(lsetxattr), ALLOW(utimensat),
      // Memory, threads, time, the end.
      ALLOW(brk), ALLOW(mmap), ALLOW(munmap), ALLOW(mremap), ALLOW(mprotect), ALLOW(madvise), ALLOW(futex), ALLOW(set_robust_list),
      ALLOW(rseq), ALLOW(rt_sigprocmask), ALLOW(rt_sigaction), ALLOW(rt_sigreturn), ALLOW(sched_getaffinity), ALLOW(clock_gettime), ALLOW(getrandom),
      ALLOW(gettid), ALLOW(getpid), ALLOW(tgkill), ALLOW(restart_syscall), ALLOW(exit), ALLOW(exit_group),
      // Threads and no processes, in no namespace of their own. The flags of clone3 are in memory, where a filter cannot see them; without it the C library takes clone.
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, __NR_clone3, 0, 1), BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOSYS),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, __NR_clone, 0, 4),
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[0])),
      BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, CLONE_THREAD, 0, 2),
      BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, NEW_NAMESPACES, 1, 0),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
  };
  struct sock_fprog program = {.len = sizeof filter / sizeof *filter, .filter = filter};
  return prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program, 0, 0) == 0;
#endif
}

static void lower_limit(int resource, rlim_t most) {
  struct rlimit limit;
  if (getrlimit(resource, &limit) != 0) wire_fail(errno, "limits", no_path());
  if (limit.rlim_max < most) most = limit.rlim_max;
  limit = (struct rlimit){most, most};
  if (setrlimit(resource, &limit) != 0) wire_fail(errno, "limits", no_path());
}

void confine(int directory) {
  if (fchdir(directory) != 0 || chroot(".") != 0 || chdir("/") != 0) wire_fail(errno, "enter the layer", no_path());
  close(directory);
  umask(0);
  lower_limit(RLIMIT_NOFILE, FILES_MAX);
  lower_limit(RLIMIT_CORE, 0);
#ifndef __SANITIZE_ADDRESS__
  lower_limit(RLIMIT_AS, MEMORY_MAX);
#endif
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 || prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) != 0) wire_fail(errno, "confine", no_path());
  if (!drop_capabilities()) wire_fail(errno, "give up capabilities", no_path());
  if (!filter_calls()) wire_fail(errno, "filter system calls", no_path());
}
