/**
 * The system calls a container may make: a list of what is allowed, everything else answers EPERM (ENOSYS for the few that C libraries probe). Written for the
 * fourteen capabilities of `oci-config.ts`: nothing here needs more. What matters most is what is missing: mount and its family, namespaces (clone with
 * CLONE_NEW*, unshare, setns), ptrace of other users' processes, kernel keyrings, bpf, perf_event_open, userfaultfd, io_uring, module and kexec calls.
 * Source: syscalls(2), clone(2), seccomp(2); the JSON form is the OCI runtime specification's `linux.seccomp`.
 */

const files = `access chdir chmod chown chown32 close close_range copy_file_range creat dup dup2 dup3 faccessat faccessat2 fadvise64 fadvise64_64 fallocate fchdir fchmod
fchmodat fchmodat2 fchown fchown32 fchownat fcntl fcntl64 fdatasync fgetxattr flistxattr flock fremovexattr fsetxattr fstat fstat64 fstatat64 fstatfs fstatfs64 fsync
ftruncate ftruncate64 futimesat getcwd getdents getdents64 getxattr getxattrat ioctl lchown lchown32 lgetxattr link linkat listxattr listxattrat llistxattr lremovexattr _llseek
lseek lsetxattr lstat lstat64 mkdir mkdirat mknod mknodat name_to_handle_at newfstatat open openat openat2 pread64 preadv preadv2 pwrite64 pwritev pwritev2 read readahead
readlink readlinkat readv removexattr removexattrat rename renameat renameat2 rmdir sendfile sendfile64 setxattr setxattrat splice stat stat64 statfs statfs64 statx symlink symlinkat
sync sync_file_range syncfs tee truncate truncate64 umask unlink unlinkat utime utimensat utimensat_time64 utimes vmsplice write writev`

const processes = `arch_prctl capget capset chroot execve execveat exit exit_group fork get_robust_list get_thread_area getegid getegid32 geteuid geteuid32 getgid getgid32
getgroups getgroups32 getpgid getpgrp getpid getppid getpriority getresgid getresgid32 getresuid getresuid32 getrlimit getrusage getsid gettid getuid getuid32 ioprio_get
ioprio_set kcmp kill membarrier modify_ldt pause pidfd_open pidfd_send_signal prctl prlimit64 process_mrelease ptrace rseq sched_get_priority_max sched_get_priority_min
sched_getaffinity sched_getattr sched_getparam sched_getscheduler sched_rr_get_interval sched_setaffinity sched_setattr sched_setparam sched_setscheduler sched_yield
seccomp set_robust_list set_thread_area set_tid_address setfsgid setfsgid32 setfsuid setfsuid32 setgid setgid32 setgroups setgroups32 setpgid setpriority setregid setregid32
setresgid setresgid32 setresuid setresuid32 setreuid setreuid32 setrlimit setsid setuid setuid32 tgkill tkill ugetrlimit uname vfork wait4 waitid waitpid
landlock_create_ruleset landlock_add_rule landlock_restrict_self`

const memory = `brk cachestat get_mempolicy getrandom madvise map_shadow_stack memfd_create memfd_secret mincore mlock mlock2 mlockall mmap mmap2 mprotect mremap mseal msync munlock
munlockall munmap pkey_alloc pkey_free pkey_mprotect remap_file_pages set_mempolicy`

const events = `alarm clock_getres clock_getres_time64 clock_gettime clock_gettime64 clock_nanosleep clock_nanosleep_time64 epoll_create epoll_create1 epoll_ctl epoll_ctl_old
epoll_pwait epoll_pwait2 epoll_wait epoll_wait_old eventfd eventfd2 fanotify_mark futex futex_requeue futex_time64 futex_wait futex_waitv futex_wake getitimer gettimeofday
inotify_add_watch inotify_init inotify_init1 inotify_rm_watch io_cancel io_destroy io_getevents io_pgetevents io_pgetevents_time64 io_setup io_submit nanosleep _newselect
pipe pipe2 poll ppoll ppoll_time64 pselect6 pselect6_time64 restart_syscall rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_sigreturn rt_sigsuspend
rt_sigtimedwait rt_sigtimedwait_time64 rt_tgsigqueueinfo select sigaltstack signalfd signalfd4 sigprocmask sigreturn time timer_create timer_delete timer_getoverrun
timer_gettime timer_gettime64 timer_settime timer_settime64 timerfd_create timerfd_gettime timerfd_gettime64 timerfd_settime timerfd_settime64 times sysinfo`

const messages = `accept accept4 bind connect getpeername getsockname getsockopt ipc listen mq_getsetattr mq_notify mq_open mq_timedreceive mq_timedreceive_time64
mq_timedsend mq_timedsend_time64 mq_unlink msgctl msgget msgrcv msgsnd recv recvfrom recvmmsg recvmmsg_time64 recvmsg semctl semget semop semtimedop semtimedop_time64
send sendmmsg sendmsg sendto setsockopt shmat shmctl shmdt shmget shutdown socketcall socketpair process_vm_readv process_vm_writev`

const names = (text: string) => text.split(/\s+/).filter((name) => name !== '')

/** CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET together (clone(2)). */
const cloneNamespaceMask = 0x7e020000
const addressFamilyVsock = 40
const addressFamilyAlg = 38
const enosys = 38

export interface SeccompRule {
  readonly names: readonly string[]
  readonly action: 'SCMP_ACT_ALLOW' | 'SCMP_ACT_ERRNO'
  readonly errnoRet?: number
  readonly args?: readonly { readonly index: number; readonly value: number; readonly valueTwo?: number; readonly op: string }[]
}

/** `linux.seccomp` of the runtime configuration. */
export function seccompProfile() {
  const syscalls: SeccompRule[] = [
    { names: names([files, processes, memory, events, messages].join(' ')), action: 'SCMP_ACT_ALLOW' },
    // Sockets of every family but vsock, which would reach the hypervisor of a host that is itself a guest, and the kernel's crypto interface.
    { names: ['socket'], action: 'SCMP_ACT_ALLOW', args: [{ index: 0, value: addressFamilyAlg, op: 'SCMP_CMP_LT' }] },
    { names: ['socket'], action: 'SCMP_ACT_ALLOW', args: [{ index: 0, value: addressFamilyAlg + 1, op: 'SCMP_CMP_EQ' }] },
    { names: ['socket'], action: 'SCMP_ACT_ALLOW', args: [{ index: 0, value: addressFamilyVsock, op: 'SCMP_CMP_GT' }] },
    // Threads and processes, but no new namespaces. clone3 hides its flags from seccomp: ENOSYS makes C libraries fall back to clone.
    { names: ['clone'], action: 'SCMP_ACT_ALLOW', args: [{ index: 0, value: cloneNamespaceMask, valueTwo: 0, op: 'SCMP_CMP_MASKED_EQ' }] },
    { names: ['clone3'], action: 'SCMP_ACT_ERRNO', errnoRet: enosys },
    // Only reading the execution domain, and the ones that `setarch` and builds of 32-bit programs use.
    ...[0x0, 0x0008, 0x20000, 0x20008, 0x40000, 0xffffffff].map(
      (value): SeccompRule => ({ names: ['personality'], action: 'SCMP_ACT_ALLOW', args: [{ index: 0, value, op: 'SCMP_CMP_EQ' }] }),
    ),
  ]
  return {
    defaultAction: 'SCMP_ACT_ERRNO',
    defaultErrnoRet: 1,
    architectures: ['SCMP_ARCH_X86_64', 'SCMP_ARCH_X86', 'SCMP_ARCH_X32'],
    syscalls,
  }
}
