import { existsSync } from 'node:fs'
import type { SandboxShape } from '../driver.ts'
import { seccompProfile } from './seccomp-profile.ts'

/** What a warm container is made of; see {@link ociConfig}. */
export interface OciConfigInput {
  readonly hostname: string
  /** Its root: writable, or one that all share. */
  readonly root: { readonly path: string; readonly readonly: boolean }
  /** The agent's file outside, where its root does not have it: read-only at {@link lentAgentPath}. */
  readonly lentAgent?: string
  readonly netnsPath: string
  readonly cgroupsPath: string
  /** First host id of the 65,536 that the container's ids are mapped to. */
  readonly uidBase: number
  readonly shape: Pick<SandboxShape, 'vcpus' | 'memoryMb'>
  readonly pidsLimit: number
  /** The compiled profile in base64; without it the runtime compiles the profile, which costs 40 ms. */
  readonly seccompBpf?: string | undefined
  readonly args: readonly string[]
}

export const idsPerSandbox = 65_536
/** Where a container finds an agent that is not in its root. Not in the root, which may be a workspace's. */
export const lentAgentPath = '/run/.mags-agent'
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
]
const readonlyPaths = ['/proc/bus', '/proc/fs', '/proc/irq', '/proc/sys', '/proc/sysrq-trigger']

const mount = (destination: string, type: string, ...options: string[]) => ({ destination, type, source: type, options })

const shownOfSys = ['/sys/devices/system/cpu', '/sys/devices/system/node', '/sys/kernel/mm/transparent_hugepage'].filter((path) => existsSync(path))

/**
 * A sysfs of its own cannot be mounted by who does not own the network namespace, and the host's tells of its devices, its links and those of other sandboxes (a runtime would take that one). So there is only what
 * programs look for: how many processors there are, and how memory is paged.
 */
const sys = [
  mount('/sys', 'tmpfs', 'nosuid', 'noexec', 'nodev', 'mode=755', 'size=64k', 'nr_inodes=64'),
  ...shownOfSys.map((path) => ({
    destination: path,
    type: 'bind',
    source: path,
    options: ['bind', 'nosuid', 'noexec', 'nodev', 'ro'],
  })),
]

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
    root: input.root,
    hostname: input.hostname,
    mounts: [
      mount('/proc', 'proc', 'nosuid', 'noexec', 'nodev'),
      mount('/dev', 'tmpfs', 'nosuid', 'noexec', 'strictatime', 'mode=755', 'size=65536k'),
      mount('/dev/pts', 'devpts', 'nosuid', 'noexec', 'newinstance', 'ptmxmode=0666', 'mode=0620', 'gid=5'),
      mount('/dev/shm', 'tmpfs', 'nosuid', 'noexec', 'nodev', 'mode=1777', 'size=65536k'),
      mount('/dev/mqueue', 'mqueue', 'nosuid', 'noexec', 'nodev'),
      ...sys,
      mount('/run', 'tmpfs', 'nosuid', 'nodev', 'mode=755', 'size=65536k'),
      ...(input.lentAgent === undefined
        ? []
        : [{ destination: lentAgentPath, type: 'bind', source: input.lentAgent, options: ['bind', 'ro', 'nosuid', 'nodev'] }]),
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
