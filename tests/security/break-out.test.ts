import { Mags } from '@mags/sdk'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { startDaemon, type TestDaemon } from '../kit/daemon.ts'
import { canTest, notRoot } from '../kit/require.ts'

/**
 * What root inside a container tries in order to get out. Every attempt prints ESCAPED when it works, and its own words otherwise; perl is in every Debian image and makes any system call by
 * number. The controls at the end show that the same means do work where they are allowed, so that an attempt cannot fail for the wrong reason.
 */
const attempts: Record<string, string> = {
  'writes core_pattern': 'echo "|/tmp/x" > /proc/sys/kernel/core_pattern && echo ESCAPED',
  'writes modprobe path': 'echo /tmp/x > /proc/sys/kernel/modprobe && echo ESCAPED',
  'triggers sysrq': 'echo h > /proc/sysrq-trigger && echo ESCAPED',
  'writes a sysctl of the host': 'echo 1 > /proc/sys/vm/drop_caches && echo ESCAPED',
  'raises its own limits through control groups':
    'find / -xdev -name "memory.max" -o -xdev -name "memory.limit_in_bytes" | grep -q . && echo ESCAPED; ls /sys/fs/cgroup/* 2>/dev/null | grep -q . && echo ESCAPED',
  'writes below /sys': 'for f in $(find /sys -type f -perm -u+w 2>/dev/null | head -200); do (echo 1 > "$f") 2>/dev/null && echo "ESCAPED $f"; done',
  'sees links, disks and other devices of the host':
    'ls -d /sys/class/* /sys/block/* /sys/bus/* /sys/fs/* /sys/devices/[!s]* 2>/dev/null | grep . && echo ESCAPED',
  'reads kernel memory': 'head -c 16 /proc/kcore | grep -q . && echo ESCAPED',
  'reads the kernel log': 'dmesg 2>/dev/null | grep -q . && echo ESCAPED; perl -e \'exit(syscall(103, 3, my $b = " " x 100, 100) < 0)\' && echo ESCAPED',
  'reads kernel keys': 'test -s /proc/keys && echo ESCAPED',
  'makes a block device': 'mknod /tmp/disk b 254 0 && head -c 1 /tmp/disk && echo ESCAPED',
  'makes a device of kernel memory': 'mknod /tmp/mem c 1 1 && head -c 1 /tmp/mem && echo ESCAPED',
  'opens a device of the host':
    'for d in /dev/vda /dev/sda /dev/nvme0n1 /dev/kvm /dev/fuse /dev/net/tun /dev/loop-control /dev/mapper/control; do test -e $d && echo "ESCAPED $d"; done',
  'mounts a tmpfs': 'mount -t tmpfs none /mnt && echo ESCAPED',
  'mounts proc again': 'mkdir -p /tmp/p && mount -t proc proc /tmp/p && echo ESCAPED',
  'remounts /proc/sys writable': 'mount -o remount,rw /proc/sys && echo ESCAPED',
  'unmounts what hides parts of /proc': 'umount /proc/kcore && echo ESCAPED; umount /proc/sys && echo ESCAPED',
  'makes a user namespace by unshare': 'unshare -Ur true && echo ESCAPED',
  'makes a mount namespace by unshare': 'unshare -m true && echo ESCAPED',
  'makes a user namespace by clone': "perl -e 'my $p = syscall(56, 0x10000000 | 17, 0, 0, 0, 0); exit 1 if $p < 0; exit 0' && echo ESCAPED",
  'makes a user namespace by clone3': 'perl -e \'my $a = pack("Q11", 0x10000000, (0) x 3, 17, (0) x 6); exit(syscall(435, $a, 88) < 0)\' && echo ESCAPED',
  'enters the namespaces of the first process': 'nsenter -t 1 -m true && echo ESCAPED',
  'calls setns': 'perl -e \'open my $f, "<", "/proc/self/ns/net" or exit 1; exit(syscall(308, fileno($f), 0) < 0)\' && echo ESCAPED',
  'calls pivot_root': 'perl -e \'exit(syscall(155, "/", "/") < 0)\' && echo ESCAPED',
  'calls open_tree': 'perl -e \'exit(syscall(428, -100, "/", 1) < 0)\' && echo ESCAPED',
  'calls fsopen': 'perl -e \'exit(syscall(430, "tmpfs", 0) < 0)\' && echo ESCAPED',
  'opens by file handle': 'perl -e \'my $h = pack("II", 8, 1) . "\\0" x 8; exit(syscall(304, -100, $h, 0) < 0)\' && echo ESCAPED',
  'traces the first process': "perl -e 'exit(syscall(101, 16, 1, 0, 0) < 0)' && echo ESCAPED",
  'reads the memory of the first process': 'head -c 1 /proc/1/mem >/dev/null && echo ESCAPED; cat /proc/1/maps | grep -q . && echo ESCAPED',
  'reaches descriptors of the first process': 'ls -l /proc/1/fd | grep -q socket && echo ESCAPED',
  'adds a key to a keyring': 'perl -e \'exit(syscall(248, "user", "a", "b", 1, -3) < 0)\' && echo ESCAPED',
  'reads keyrings': "perl -e 'exit(syscall(250, 0, -3, 1) < 0)' && echo ESCAPED",
  'loads a bpf program': 'perl -e \'my $a = pack("I4", 1, 4, 4, 1) . "\\0" x 100; exit(syscall(321, 0, $a, 72) < 0)\' && echo ESCAPED',
  'opens a performance event': 'perl -e \'my $a = pack("IIQ", 1, 112, 0) . "\\0" x 96; exit(syscall(298, $a, 0, -1, -1, 0) < 0)\' && echo ESCAPED',
  'opens a userfaultfd': "perl -e 'exit(syscall(323, 1) < 0)' && echo ESCAPED",
  'sets up io_uring': 'perl -e \'my $p = "\\0" x 120; exit(syscall(425, 1, $p) < 0)\' && echo ESCAPED',
  'loads a kernel module': 'perl -e \'exit(syscall(175, "x", 1, "") < 0)\' && echo ESCAPED',
  'loads another kernel': "perl -e 'exit(syscall(246, 0, 0, 0, 0) < 0)' && echo ESCAPED",
  'restarts the machine': "perl -e 'exit(syscall(169, 0xfee1dead, 672274793, 0x89abcdef, 0) < 0)' && echo ESCAPED",
  'turns on swap': 'perl -e \'exit(syscall(167, "/tmp/s", 0) < 0)\' && echo ESCAPED',
  'sets the clock': 'date -s "2001-01-01" >/dev/null && echo ESCAPED',
  'changes the host name': 'hostname escaped 2>/dev/null && test "$(hostname)" = escaped && echo ESCAPED',
  'opens a vsock': "perl -e 'exit(syscall(41, 40, 1, 0) < 0)' && echo ESCAPED",
  'opens a kernel crypto socket': "perl -e 'exit(syscall(41, 38, 5, 0) < 0)' && echo ESCAPED",
  'configures its network': 'ip addr add 10.99.99.99/32 dev eth0 2>/dev/null && echo ESCAPED; ip link set eth0 down 2>/dev/null && echo ESCAPED',
  'gains privileges by a setuid program':
    'cp /bin/sh /tmp/s && chown root /tmp/s && chmod u+s /tmp/s && grep -q "NoNewPrivs:.0" /proc/self/status && echo ESCAPED',
  'has more capabilities than granted': 'test "$(sed -n "s/^CapEff:.*\\(.\\{16\\}\\)$/\\1/p" /proc/self/status)" = 00000000a80425fb || echo ESCAPED',
  'runs without a filter': 'grep -q "Seccomp:.2" /proc/self/status || echo ESCAPED',
  'is root of the host': 'awk \'$1 == 0 && $2 < 1000000000 {print "ESCAPED"}\' /proc/self/uid_map',
  'sees processes of the host': 'test "$(ls -d /proc/[0-9]* | wc -l)" -lt 20 || echo ESCAPED',
  'sees mounts of the host':
    'grep -vE " (/|/proc|/dev|/sys|/run)(/| )" /proc/self/mountinfo | cut -d" " -f5 | grep -vE "^/(proc|dev|sys|run)|^/$" && echo ESCAPED',
}

/** What must work all the same, by the same means. */
const controls: Record<string, string> = {
  'perl makes system calls': "perl -e 'exit(syscall(39) <= 1)' && echo WORKS",
  'opens an inet socket by number': "perl -e 'exit(syscall(41, 2, 1, 0) < 0)' && echo WORKS",
  'clone without namespaces': "perl -e 'my $p = fork; exit 0 unless $p; waitpid $p, 0; exit 0' && echo WORKS",
  'changes ids and owners': 'touch /tmp/f && chown 1000:1000 /tmp/f && test "$(stat -c %u /tmp/f)" = 1000 && echo WORKS',
  'makes a fifo': 'mkfifo /tmp/fifo && echo WORKS',
  'binds a low port': "perl -MIO::Socket::INET -e 'IO::Socket::INET->new(Listen => 1, LocalPort => 80) or exit 1' && echo WORKS",
}

describe.runIf(canTest('MAGS_REQUIRE_CONTAINER', notRoot))('break-out from a container, as root', () => {
  let daemon: TestDaemon
  let mags: Mags
  let id: string

  beforeAll(async () => {
    daemon = await startDaemon({ MAGS_ISOLATION: 'container' })
    mags = new Mags({ apiUrl: daemon.url, apiToken: daemon.token })
    id = (await mags.run('sleep infinity', { persistent: true, isolation: 'container' })).requestId
    while ((await mags.status(id)).status === 'pending') await new Promise((resolve) => setTimeout(resolve, 20))
  }, 180_000)

  afterAll(async () => {
    await daemon?.[Symbol.asyncDispose]()
  }, 60_000)

  it.each(Object.entries(attempts))('%s', async (_name, script) => {
    const result = await mags.exec(id, `(${script}) 2>&1; true`, { timeoutSeconds: 20 })
    expect(result.stdout).not.toContain('ESCAPED')
    // The attempt ran: the shell that makes it came to its end.
    expect(result.exitCode).toBe(0)
  })

  it.each(Object.entries(controls))('control: %s', async (_name, script) => {
    const result = await mags.exec(id, `(${script}) 2>&1; true`, { timeoutSeconds: 20 })
    expect(result.stdout).toContain('WORKS')
  })

  it('cannot be stopped by its own tenant: the agent outlives signals, and goes on', async () => {
    await mags.exec(id, 'kill -9 1; kill -STOP 1; kill -TERM 1; kill -SEGV 1; true')
    const result = await mags.exec(id, 'echo alive')
    expect(result.stdout).toBe('alive\n')
  })

  it('does not see the environment or files of another job', async () => {
    const secret = `secret-${crypto.randomUUID()}`
    const other = await mags.run(`echo ${secret} > /root/secret; sleep infinity`, { persistent: true, environment: { MAGS_SECRET: secret } })
    while ((await mags.status(other.requestId)).status === 'pending') await new Promise((resolve) => setTimeout(resolve, 20))
    const search = `grep -rs -e ${secret.slice(0, 20)} /proc/[0-9]*/environ /root /tmp /run /var/tmp 2>/dev/null | grep -v "^/proc/self" | grep -c -e "${secret.slice(20)}"`
    const result = await mags.exec(id, search)
    expect(result.stdout.trim()).toBe('0')
    await mags.stop(other.requestId)
  })
})
