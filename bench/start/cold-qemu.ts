import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { realpath } from 'node:fs/promises'
import { join } from 'node:path'
import { type Row, sample } from '../kit/statistics.ts'

const systemDir = process.env.MAGS_SYSTEM_DIR ?? '/var/lib/mags'

/**
 * What a VM costs without a pool: QEMU's microvm started cold with the same kernel, memory and emulation, until the kernel has come as far as it can (it finds no root and stops the machine).
 * A guest that also mounts its root and answers takes longer; so this is the least a cold start can be.
 */
export async function coldQemu(runs: number): Promise<Row> {
  const kernel = await realpath(join(systemDir, 'kernels/current/vmlinux'))
  const append = 'console=ttyS0 quiet reboot=t panic=-1 no_timer_check tsc=reliable mitigations=off nokaslr'
  const machine = ['-M', 'microvm,accel=tcg,rtc=on,pit=on,pic=on,isa-serial=on', '-cpu', 'qemu64,+rdrand,+arat', '-m', '512', '-smp', '1', '-no-reboot']
  const plain = ['-nodefaults', '-no-user-config', '-display', 'none', '-serial', 'stdio']
  return sample('QEMU microvm, cold, kernel alone', runs, async () => {
    const begin = performance.now()
    const child = spawn('qemu-system-x86_64', [...machine, ...plain, '-kernel', kernel, '-append', append], { stdio: ['ignore', 'pipe', 'ignore'] })
    let words = ''
    child.stdout.on('data', (bytes: Buffer) => {
      words += bytes
    })
    const [code] = await once(child, 'exit')
    if (code !== 0 || !words.includes('VFS')) throw new Error(`exit ${code}: ${words.slice(-200)}`)
    return performance.now() - begin
  })
}
