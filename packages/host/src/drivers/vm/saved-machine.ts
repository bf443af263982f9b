import { open, rename, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { MagsError } from '@mags/protocol'
import type { MachineConfig } from './command-line.ts'
import { type Machine, type StartMachineOptions, startMachine } from './machine.ts'
import { loadState, saveState } from './migrate.ts'
import { memoryName } from './vm-record.ts'

/** A busy disk takes as little as this; QEMU and we do far more. */
const bytesPerMs = 20_000

/** How long memory of this size may take to or from the disk, besides what everything takes here. */
export function transferTimeoutMs(memoryMb: number, baseMs: number): number {
  return baseMs + (memoryMb * 2 ** 20) / bytesPerMs
}

/**
 * Writes memory and devices of a stopped machine to `memory` in a folder; the file is there whole or not at all. What `save` leaves of a machine is stopped, and may go on.
 * Rejects with MagsError 'sandbox_failed', e.g. when the disk is full.
 */
export async function saveMachine(
  machine: Machine,
  options: { directory: string; target: string; uid: number; memoryMb: number; timeoutMs: number },
): Promise<void> {
  const { directory, target, uid, memoryMb, timeoutMs } = options
  const draft = join(target, `${memoryName}.part`)
  try {
    await saveState(machine.qmp, { socketPath: join(directory, 'state.sock'), uid, file: draft, memory: true, memoryMb, timeoutMs })
    await rename(draft, join(target, memoryName))
  } catch (error) {
    await rm(draft, { force: true })
    const { code, message } = error as NodeJS.ErrnoException
    const words = code === 'ENOSPC' ? 'the disk is full' : message
    throw new MagsError('sandbox_failed', `the memory of a virtual machine could not be written to disk: ${words}`, { cause: error })
  }
}

/** Starts QEMU from what `saveMachine` wrote; the machine is stopped. Rejects with MagsError 'sandbox_failed' and QEMU's words; the file stays for another try. */
export async function startSavedMachine(
  config: Omit<MachineConfig, 'ramPath' | 'ramShared' | 'incoming'>,
  options: Omit<StartMachineOptions, 'config' | 'fds'>,
): Promise<Machine> {
  await using file = await open(join(config.directory, memoryName), 'r').catch((error: NodeJS.ErrnoException) => {
    throw new MagsError('sandbox_failed', `the saved memory of a virtual machine cannot be read (${error.code})`, { cause: error })
  })
  // What QEMU said in the machine's last life would be taken for the reason of a failure in this one.
  await rm(options.logFile, { force: true })
  const machine = await startMachine({ ...options, config: { ...config, ramShared: false, incoming: true }, fds: [file.fd] })
  try {
    await loadState(machine.qmp, { fd: 3, memory: true, timeoutMs: options.timeoutMs })
    return machine
  } catch (error) {
    await machine.kill()
    throw new MagsError(
      'sandbox_failed',
      `a virtual machine could not be restored from its memory on disk: ${(error as Error).message}; ${await machine.stopped}`,
      { cause: error },
    )
  }
}
