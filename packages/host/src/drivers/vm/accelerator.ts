import { access, chown, constants, mkdir, readFile, rm } from 'node:fs/promises'
import { join } from 'node:path'
import type { Logger } from 'pino'
import { readRecord, writeRecord } from '../../recover/record-file.ts'
import { newSandboxId } from '../sandbox-id.ts'
import { bootGuest, type GuestParts } from './boot-guest.ts'

/** How guests run on this machine, and why, in words for `doctor`. */
export interface Accelerator {
  readonly accelerator: 'kvm' | 'tcg'
  readonly detail: string
}

export interface ProbeAcceleratorOptions {
  /** Answers are kept here until the machine boots again or its parts change. */
  readonly cacheDir: string
  readonly vmDir: string
  readonly uid: number
  readonly imageFile: string
  readonly guest: Omit<GuestParts, 'accelerator'>
  /** A guest with KVM is up in a second; default 10,000. */
  readonly timeoutMs?: number
  readonly logger: Pick<Logger, 'info'>
}

interface CachedAnswer extends Accelerator {
  readonly key: string
}

/**
 * Whether KVM really runs a guest here. That /dev/kvm exists and makes virtual machines does not tell: nested hosts do that and then do not run a stock kernel. So a guest is booted to
 * its agent, once per boot of this machine, QEMU and kernel.
 */
export async function probeAccelerator(options: ProbeAcceleratorOptions): Promise<Accelerator> {
  const missing = await access('/dev/kvm', constants.R_OK | constants.W_OK).then(
    () => undefined,
    (error: NodeJS.ErrnoException) => (error.code === 'ENOENT' ? 'there is no /dev/kvm' : `/dev/kvm cannot be opened (${error.code})`),
  )
  if (missing !== undefined)
    return { accelerator: 'tcg', detail: `software emulation, 5 to 50 times slower: ${missing}. On a cloud machine choose one with nested virtualization.` }
  const { guest, cacheDir, logger } = options
  const bootId = (await readFile('/proc/sys/kernel/random/boot_id', 'utf8')).trim()
  const key = [bootId, guest.qemuVersion, guest.kernelDigest, guest.initramfs.digest].join(' ')
  const file = join(cacheDir, 'accelerator.json')
  const cached = await readRecord<CachedAnswer>(file)
  if (cached?.key === key) return { accelerator: cached.accelerator, detail: cached.detail }
  logger.info({}, 'trying whether KVM boots a guest; once per boot of this machine')
  const answer = await bootWithKvm(options)
  await writeRecord(file, { ...answer, key } satisfies CachedAnswer)
  return answer
}

async function bootWithKvm({ guest, vmDir, uid, imageFile, timeoutMs = 10_000 }: ProbeAcceleratorOptions): Promise<Accelerator> {
  await using undo = new AsyncDisposableStack()
  const directory = join(vmDir, newSandboxId())
  await mkdir(directory, { recursive: true, mode: 0o710 })
  undo.defer(() => rm(directory, { recursive: true, force: true }))
  await chown(directory, 0, uid)
  const began = performance.now()
  try {
    const booted = await bootGuest(
      { ...guest, accelerator: 'kvm' },
      { directory, uid, vcpus: 1, memoryMb: 256, ramFile: join(directory, 'ram'), imageFile, timeoutMs },
    )
    undo.defer(() => booted.machine.kill())
    undo.defer(() => booted.agent.close())
    return { accelerator: 'kvm', detail: `KVM: a guest was ready in ${Math.round(performance.now() - began)} ms` }
  } catch (error) {
    const why = error instanceof Error ? error.message : String(error)
    return { accelerator: 'tcg', detail: `software emulation, 5 to 50 times slower: /dev/kvm exists but a guest did not start with it (${why})` }
  }
}
