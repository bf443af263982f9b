import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { MagsError } from '@mags/protocol'
import { connectAgent } from '../../agent/connect-agent.ts'
import type { AgentConnection } from '../../agent/connection.ts'
import type { Initramfs } from './initramfs.ts'
import { guestWords, type Machine, startMachine } from './machine.ts'

/** What all guests of this host have in common. */
export interface GuestParts {
  readonly accelerator: 'kvm' | 'tcg'
  readonly kernelPath: string
  /** SHA-256 of the kernel. */
  readonly kernelDigest: string
  readonly initramfs: Initramfs
  readonly qemuVersion: string
  /** The host's processor, whose features a KVM guest has seen; empty for emulation. */
  readonly cpuModel: string
  readonly tscKhz: number
  /** Size of the disk a guest sees before a workspace is swapped in. */
  readonly placeholderGb: number
}

export interface BootGuestOptions {
  /** QEMU's root folder, empty. */
  readonly directory: string
  readonly uid: number
  readonly vcpus: number
  readonly memoryMb: number
  /** Made by QEMU; the guest's RAM. */
  readonly ramFile: string
  readonly imageFile: string
  readonly timeoutMs: number
  /** At a low priority. */
  readonly background?: boolean
  /** Ends the guest, also once it is booted. */
  readonly abort?: AbortSignal
}

export interface BootedGuest {
  readonly machine: Machine
  readonly agent: AgentConnection
}

/** What the names of such machines begin with; none of them is a job's. */
export const bootName = 'mags-boot'

/** Boots a guest from its kernel until its agent answers. Rejects with MagsError 'sandbox_failed' and the last words of the guest or of QEMU; nothing is left running then. */
export async function bootGuest(parts: GuestParts, options: BootGuestOptions): Promise<BootedGuest> {
  const { directory, timeoutMs } = options
  const machine = await startMachine({
    config: {
      name: `${bootName}-${options.vcpus}-${options.memoryMb}`,
      accelerator: parts.accelerator,
      vcpus: options.vcpus,
      memoryMb: options.memoryMb,
      ramPath: options.ramFile,
      ramShared: true,
      kernelPath: parts.kernelPath,
      initramfsPath: parts.initramfs.path,
      rootPath: options.imageFile,
      placeholderBytes: parts.placeholderGb * 2 ** 30,
      directory,
      qmpPath: join(directory, 'qmp'),
      agentPath: join(directory, 'agent.sock'),
      uid: options.uid,
      tscKhz: parts.tscKhz,
    },
    logFile: join(directory, 'qemu.log'),
    timeoutMs,
    background: options.background ?? false,
  })
  const kill = () => void machine.kill()
  options.abort?.addEventListener('abort', kill, { once: true })
  void machine.stopped.then(() => options.abort?.removeEventListener('abort', kill))
  if (options.abort?.aborted) kill()
  try {
    return { machine, agent: await connectAgentOf(machine, join(directory, 'agent.sock'), timeoutMs) }
  } catch (error) {
    const words = guestWords(await machine.readConsole())
    await machine.kill()
    if (words === '' || !(error instanceof MagsError) || error.message.includes(words)) throw error
    throw new MagsError('sandbox_failed', `${error.message}; the guest's last words: ${words}`, { cause: error })
  }
}

/** Connects to the agent of a running guest; does not wait longer for one that has died. */
export async function connectAgentOf(machine: Machine, agentPath: string, timeoutMs: number): Promise<AgentConnection> {
  const connecting = connectAgent(agentPath, { timeoutMs })
  const dying = machine.stopped.then((why) => {
    throw new MagsError('sandbox_failed', `a virtual machine died before its agent answered: ${why}`)
  })
  try {
    return await Promise.race([connecting, dying])
  } catch (error) {
    connecting.then(
      (agent) => agent.close(),
      () => undefined,
    )
    throw error
  } finally {
    dying.catch(() => undefined)
  }
}

const firstTryMs = 2000
const betweenTriesMs = 200

/**
 * The same for the agent of a guest that may have stood still while its last connection ended. It can miss that end when the next connection is there as soon as it runs again, and then takes our greeting for the rest of
 * what it was reading. A connection that gets no answer is therefore ended, which a running guest does see, and made anew.
 */
export async function reconnectAgentOf(machine: Machine, agentPath: string, timeoutMs: number): Promise<AgentConnection> {
  const deadline = performance.now() + timeoutMs
  for (let tryMs = firstTryMs; ; tryMs *= 2) {
    const leftMs = deadline - performance.now()
    try {
      return await connectAgentOf(machine, agentPath, Math.max(betweenTriesMs, Math.min(tryMs, leftMs)))
    } catch (error) {
      if (leftMs <= tryMs) throw error
      await Promise.race([delay(betweenTriesMs), machine.stopped])
    }
  }
}
