import { describe, expect, it } from 'vitest'
import { kernelCommandLine, type MachineConfig, qemuArguments } from './command-line.ts'

const config: MachineConfig = {
  name: 'mags-0123456789ab',
  accelerator: 'tcg',
  vcpus: 2,
  memoryMb: 512,
  ramPath: '/proc/1/fd/7',
  ramShared: false,
  kernelPath: '/k/vmlinux',
  initramfsPath: '/k/initramfs.cpio',
  rootPath: '/images/root.erofs',
  placeholderBytes: 10 * 2 ** 30,
  directory: '/vms/0123456789ab',
  qmpPath: '/vms/0123456789ab/qmp',
  agentPath: '/vms/0123456789ab/agent.sock',
  uid: 1_879_048_192,
  tscKhz: 2_596_120,
}

/** Values of an option, in order. */
const values = (args: string[], option: string) => args.flatMap((arg, at) => (arg === option ? [args[at + 1]] : []))

describe('qemuArguments', () => {
  it('gives the guest its processors and memory, private and from the template', () => {
    const args = qemuArguments(config)
    expect(values(args, '-smp')).toEqual(['2'])
    expect(values(args, '-m')).toEqual(['512'])
    expect(values(args, '-object')).toEqual(['memory-backend-file,id=ram,size=512M,mem-path=/proc/1/fd/7,share=off'])
    expect(values(qemuArguments({ ...config, ramShared: true }), '-object')[0]).toContain('share=on')
  })

  it('gives a machine that was saved with its memory memory of its own, and its disk from the start', () => {
    const { ramPath: _, ...saved } = config
    const args = qemuArguments({ ...saved, diskPath: '/vms/a,b/disk.raw', incoming: true })
    expect(values(args, '-object')).toEqual(['memory-backend-ram,id=ram,size=512M'])
    expect(values(args, '-blockdev')).toContain('driver=file,node-name=disk,filename=/vms/a,,b/disk.raw,discard=unmap')
    expect(values(args, '-blockdev')).toContain('driver=raw,node-name=workspace,file=disk,discard=unmap')
    // The devices are the same, in the same order.
    expect(values(args, '-device')).toEqual(values(qemuArguments(config), '-device'))
  })

  it('drops root, changes the root folder and filters system calls', () => {
    const args = qemuArguments(config)
    expect(values(args, '-runas')).toEqual(['1879048192:1879048192'])
    expect(values(args, '-chroot')).toEqual(['/vms/0123456789ab'])
    expect(values(args, '-sandbox')).toEqual(['on,obsolete=deny,elevateprivileges=allow,spawn=deny,resourcecontrol=deny'])
  })

  it('emulates or uses KVM', () => {
    expect(values(qemuArguments(config), '-accel')).toEqual(['tcg,tb-size=64'])
    const kvm = qemuArguments({ ...config, accelerator: 'kvm' })
    expect([...values(kvm, '-accel'), ...values(kvm, '-cpu')]).toEqual(['kvm', 'host'])
  })

  it('has the same devices in the same order in a template and in a clone', () => {
    const template = qemuArguments({ ...config, ramShared: true })
    const clone = qemuArguments({ ...config, tapName: 't3', incoming: true })
    expect(values(clone, '-device')).toEqual(values(template, '-device'))
    expect(values(template, '-netdev')).toEqual(['hubport,id=net,hubid=0'])
    expect(values(clone, '-netdev')).toEqual(['tap,id=net,ifname=t3,script=no,downscript=no'])
    expect(values(clone, '-incoming')).toEqual(['defer'])
    expect(template).not.toContain('-incoming')
  })

  it('keeps a comma in a path from becoming an option', () => {
    expect(values(qemuArguments({ ...config, rootPath: '/a,read-only=off' }), '-blockdev')[0]).toBe(
      'driver=file,node-name=image-file,filename=/a,,read-only=off,read-only=on',
    )
  })
})

describe('kernelCommandLine', () => {
  it('tells an emulated guest the frequency of its clock and leaves a KVM guest its mitigations', () => {
    expect(kernelCommandLine(config)).toContain('tsc_early_khz=2596120')
    expect(kernelCommandLine({ ...config, accelerator: 'kvm' })).not.toMatch(/tsc|mitigations|nokaslr/)
  })
})
