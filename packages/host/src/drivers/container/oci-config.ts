import type { SandboxShape } from '../driver.ts'
import { seccompProfile } from './seccomp-profile.ts'

/** What a warm container is made of; see {@link ociConfig}. */
export interface OciConfigInput {
  readonly hostname: string
  /** Folder that holds only the agent and empty mount points, shared by all and read-only. */
  readonly warmRootDir: string
  readonly netnsPath: string
  readonly cgroupsPath: string
  /** First host id of the 65,536 that the container's ids are mapped to. */
  readonly uidBase: number
  readonly shape: Pick<SandboxShape, 'vcpus' | 'memoryMb'>
  readonly pidsLimit: number
  /** The compiled profile in base64; without it the runtime compiles the profile, which costs 40 ms. */
  readonly seccompBpf?: string
  readonly args: readonly string[]
}

export const idsPerSandbox = 65_536
/** CFS period in µs; the quota is this many for each vcpu. */
export const cpuPeriodUs = 100_000

/** What root inside may do: the set that container engines grant by default. Nothing that reaches beyond its own namespaces. */
const capabilities = [
  'CAP_AUDIT_WRITE',
  'CAP_CHOWN',
  'CAP_DAC_OVERRIDE',
  'CAP_FOWNER',
  'CAP_FSETID',
  'CAP_KILL',
  'CAP_MKNOD',
  'CAP_NET_BIND_SERVICE',
  'CAP_NET_RAW',
  'CAP_SETFCAP',
  'CAP_SETGID',
  'CAP_SETPCAP',
  'CAP_SETUID',
  'CAP_SYS_CHROOT',
]

const maskedPaths = [
  '/proc/acpi',
  '/proc/asound',
  '/proc/interrupts',
  '/proc/kcore',
  '/proc/keys',
  '/proc/latency_stats',
  '/proc/sched_debug',
  '/proc/scsi',
  '/proc/timer_list',
  '/proc/timer_stats',
  '/sys/devices/virtual/powercap',
  '/sys/firmware',
]
const readonlyPaths = ['/proc/bus', '/proc/fs', '/proc/irq', '/proc/sys', '/proc/sysrq-trigger']

const mount = (destination: string, type: string, ...options: string[]) => ({ destination, type, source: type, options })

/** The runtime configuration (OCI runtime specification 1.0) of one warm container. */
export function ociConfig(input: OciConfigInput) {
  const ids = [{ containerID: 0, hostID: input.uidBase, size: idsPerSandbox }]
  return {
    ociVersion: '1.0.2',
    annotations: input.seccompBpf === undefined ? {} : { 'run.oci.seccomp_bpf_data': input.seccompBpf },
    process: {
      terminal: false,
      user: { uid: 0, gid: 0 },
      args: input.args,
      env: ['PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin'],
      cwd: '/',
      capabilities: { bounding: capabilities, effective: capabilities, permitted: capabilities },
      rlimits: [
        { type: 'RLIMIT_NOFILE', soft: 4096, hard: 16_384 },
        { type: 'RLIMIT_CORE', soft: 0, hard: 0 },
      ],
      noNewPrivileges: true,
    },
    root: { path: input.warmRootDir, readonly: true },
    hostname: input.hostname,
    mounts: [
      mount('/proc', 'proc', 'nosuid', 'noexec', 'nodev'),
      mount('/dev', 'tmpfs', 'nosuid', 'noexec', 'strictatime', 'mode=755', 'size=65536k'),
      mount('/dev/pts', 'devpts', 'nosuid', 'noexec', 'newinstance', 'ptmxmode=0666', 'mode=0620', 'gid=5'),
      mount('/dev/shm', 'tmpfs', 'nosuid', 'noexec', 'nodev', 'mode=1777', 'size=65536k'),
      mount('/dev/mqueue', 'mqueue', 'nosuid', 'noexec', 'nodev'),
      mount('/sys', 'sysfs', 'nosuid', 'noexec', 'nodev', 'ro'),
      mount('/run', 'tmpfs', 'nosuid', 'nodev', 'mode=755', 'size=65536k'),
    ],
    linux: {
      namespaces: [
        { type: 'pid' },
        { type: 'ipc' },
        { type: 'uts' },
        { type: 'mount' },
        { type: 'cgroup' },
        { type: 'user' },
        { type: 'network', path: input.netnsPath },
      ],
      uidMappings: ids,
      gidMappings: ids,
      cgroupsPath: input.cgroupsPath,
      resources: {
        memory: { limit: input.shape.memoryMb * 2 ** 20 },
        cpu: { quota: input.shape.vcpus * cpuPeriodUs, period: cpuPeriodUs },
        pids: { limit: input.pidsLimit },
      },
      maskedPaths,
      readonlyPaths,
      // With a compiled profile crun wants the member but takes the program from the annotation.
      seccomp: input.seccompBpf === undefined ? seccompProfile() : { defaultAction: 'SCMP_ACT_ERRNO', architectures: ['SCMP_ARCH_X86_64'] },
    },
  }
}
