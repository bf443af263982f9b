import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { realpath } from 'node:fs/promises'
import { join } from 'node:path'
import { readTscKhz } from '../../packages/host/src/drivers/vm/host-clock.ts'
import { type Row, sample } from '../kit/statistics.ts'

const longestMs = 30_000
const systemDir = process.env.MAGS_SYSTEM_DIR ?? '/var/lib/mags'

/**
 * What a VM costs without a pool: QEMU's microvm started cold with the same kernel, memory and emulation, until the kernel has come as far as it can (it finds no root and stops the machine).
 * A guest that also mounts its root and answers takes longer; so this is the least a cold start can be.
 */
export async function coldQemu(runs: number): Promise<Row> {
  const kernel = await realpath(join(systemDir, 'kernels/current/vmlinux'))
  // Without it the guest may calibrate its clock for ever, as the host does something else at the wrong moment.
  const append = `console=ttyS0 quiet reboot=t panic=-1 no_timer_check tsc=reliable tsc_early_khz=${await readTscKhz()} mitigations=off nokaslr`
  const machine = ['-M', 'microvm,accel=tcg,rtc=on,pit=off,pic=off,isa-serial=on', '-cpu', 'qemu64,+rdrand,+arat', '-m', '512', '-smp', '1', '-no-reboot']
  const plain = ['-nodefaults', '-no-user-config', '-display', 'none', '-serial', 'stdio']
  return sample('QEMU microvm, cold, kernel alone', runs, async () => {
    const begin = performance.now()
    const child = spawn('qemu-system-x86_64', [...machine, ...plain, '-kernel', kernel, '-append', append], {
      stdio: ['ignore', 'pipe', 'ignore'],
      timeout: longestMs,
      killSignal: 'SIGKILL',
    })
    let words = ''
    child.stdout.on('data', (bytes: Buffer) => {
      words += bytes
    })
    const [code] = await once(child, 'exit')
    if (code !== 0 || !words.includes('VFS')) throw new Error(`exit ${code}: ${words.slice(-200)}`)
    return performance.now() - begin
  })
}
