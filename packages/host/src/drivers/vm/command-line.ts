/** What a QEMU process is started with; every path is as seen before it changes its root. */
export interface MachineConfig {
  /** Shown in the process list and found again by `sweep`. */
  readonly name: string
  readonly accelerator: 'kvm' | 'tcg'
  readonly vcpus: number
  readonly memoryMb: number
  /** File or memfd that is the guest's RAM; absent: memory of its own, for a machine whose saved state has its RAM in it. */
  readonly ramPath?: string
  /** True only while the template is made: clones keep what they change to themselves. */
  readonly ramShared: boolean
  readonly kernelPath: string
  readonly initramfsPath: string
  /** Read-only erofs of the image; absent for the probe. */
  readonly rootPath?: string
  /** What the guest sees before a workspace is swapped in. */
  readonly placeholderBytes: number
  /** Image of its disk, instead of the placeholder. */
  readonly diskPath?: string
  /** QEMU changes its root to this folder; its two sockets are in it. */
  readonly directory: string
  readonly qmpPath: string
  readonly agentPath: string
  /** User and group QEMU drops to. */
  readonly uid: number
  /** Absent: a card without a wire, as in the template. */
  readonly tapName?: string
  /** Waits for a saved state instead of booting. */
  readonly incoming?: boolean
  /** Frequency of the host's time stamp counter, for emulation; see `readTscKhz`. */
  readonly tscKhz: number
}

export const workspaceNode = 'workspace'
export const placeholderNode = 'placeholder'
/** `serial=` of the disks, by which the agent finds them: names such as vda are not stable. */
export const workspaceSerial = 'ws'
export const rootSerial = 'root'
export const consoleId = 'console'
export const consoleBytes = 16_384

/** Kernel threads, about 80, count too. */
const threadsMax = 1_104

/**
 * What a broken QEMU may still call. `-runas` needs the set*uid calls, so `elevateprivileges` cannot be denied (7.2 is killed by its own filter); after it QEMU has no
 * capabilities and no_new_privs, and `spawn=deny` keeps it from executing anything.
 */
const seccomp = 'on,obsolete=deny,elevateprivileges=allow,spawn=deny,resourcecontrol=deny'

/** Arguments of qemu-system-x86_64, qemu-system(1). Devices and their order must be the same in a template and its clones. */
export function qemuArguments(config: MachineConfig): string[] {
  return [
    ...['-name', config.name],
    ...['-machine', 'microvm,rtc=on,pit=off,pic=off,isa-serial=on,usb=off,graphics=off,pcie=off,acpi=on,memory-backend=ram'],
    ...accelerator(config),
    ...['-smp', `${config.vcpus}`],
    ...['-m', `${config.memoryMb}`],
    ...['-object', memory(config)],
    ...['-nodefaults', '-no-user-config', '-display', 'none'],
    // A ring, because a guest may write to its console without end; a guest that resets stays there so that its last words can be read.
    ...['-chardev', `ringbuf,id=${consoleId},size=${consoleBytes}`, '-serial', `chardev:${consoleId}`],
    ...['-action', 'reboot=shutdown,shutdown=pause'],
    ...['-kernel', config.kernelPath, '-initrd', config.initramfsPath, '-append', kernelCommandLine(config)],
    ...['-qmp', `unix:${optionValue(config.qmpPath)},server=on,wait=off`],
    ...['-device', 'virtio-serial-device,max_ports=2'],
    ...['-chardev', `socket,id=agent,path=${optionValue(config.agentPath)},server=on,wait=off`],
    ...['-device', 'virtserialport,chardev=agent,name=agent'],
    ...rootDisk(config),
    ...['-blockdev', `driver=null-co,node-name=${placeholderNode},size=${config.placeholderBytes},read-zeroes=on`],
    ...workspaceDisk(config),
    // A host that is out of disk, or whose disk is not to be written, stops the machine: the guest would lose what it gets no second chance to write. See DiskStall.
    ...['-device', `virtio-blk-device,drive=${workspaceNode},serial=${workspaceSerial},id=${workspaceSerial},werror=stop,rerror=report`],
    ...['-netdev', config.tapName === undefined ? 'hubport,id=net,hubid=0' : `tap,id=net,ifname=${optionValue(config.tapName)},script=no,downscript=no`],
    ...['-device', 'virtio-net-device,netdev=net'],
    ...(config.incoming ? ['-S', '-incoming', 'defer'] : []),
    ...['-sandbox', seccomp, '-runas', `${config.uid}:${config.uid}`, '-chroot', config.directory],
  ]
}

function accelerator(config: MachineConfig): string[] {
  if (config.accelerator === 'kvm') return ['-accel', 'kvm', '-cpu', 'host']
  // +arat lets an idle guest sleep (0.2 % of a core instead of 2–4); a translation cache of 32 MB costs nothing and saves 50.
  return ['-accel', 'tcg,tb-size=64', '-cpu', 'qemu64,+rdrand,+arat']
}

function memory({ memoryMb, ramPath, ramShared }: MachineConfig): string {
  if (ramPath === undefined) return `memory-backend-ram,id=ram,size=${memoryMb}M`
  return `memory-backend-file,id=ram,size=${memoryMb}M,mem-path=${optionValue(ramPath)},share=${ramShared ? 'on' : 'off'}`
}

function workspaceDisk({ diskPath }: MachineConfig): string[] {
  if (diskPath === undefined) return ['-blockdev', `driver=raw,node-name=${workspaceNode},file=${placeholderNode}`]
  return [
    ...['-blockdev', `driver=file,node-name=disk,filename=${optionValue(diskPath)},discard=unmap`],
    ...['-blockdev', `driver=raw,node-name=${workspaceNode},file=disk,discard=unmap`],
  ]
}

function rootDisk(config: MachineConfig): string[] {
  const file =
    config.rootPath === undefined
      ? `driver=null-co,node-name=image-file,size=${1 << 20},read-zeroes=on`
      : `driver=file,node-name=image-file,filename=${optionValue(config.rootPath)},read-only=on`
  return [
    ...['-blockdev', file],
    ...['-blockdev', 'driver=raw,node-name=image,file=image-file,read-only=on'],
    ...['-device', `virtio-blk-device,drive=image,serial=${rootSerial}`],
  ]
}

/** https://docs.kernel.org/admin-guide/kernel-parameters.html */
export function kernelCommandLine(config: Pick<MachineConfig, 'accelerator' | 'tscKhz'>): string {
  // Threads: a fork bomb is refused before it has eaten the memory; containers have the same limit. eth0 has no IPv6 unless the agent is given a leased address (lo keeps its ::1).
  const sysctls = `sysctl.kernel.threads-max=${threadsMax} sysctl.net.ipv6.conf.default.disable_ipv6=1`
  const common = `console=ttyS0 quiet reboot=t panic=-1 cryptomgr.notests random.trust_cpu=on audit=0 apparmor=0 ${sysctls}`
  if (config.accelerator === 'kvm') return common
  // Calibrating the time stamp counter against an emulated timer is a race that a busy host loses; we know its frequency. The other four save boot time where
  // no neighbour shares the emulated CPU.
  return `${common} no_timer_check mitigations=off nokaslr noreplace-smp tsc=reliable tsc_early_khz=${config.tscKhz}`
}

/** A comma ends a value in QEMU's option syntax; doubled it is one. */
function optionValue(value: string): string {
  return value.replaceAll(',', ',,')
}
