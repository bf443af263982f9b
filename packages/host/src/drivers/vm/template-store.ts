import { createHash, randomBytes } from 'node:crypto'
import { chown, mkdir, readdir, rename, rm, stat, utimes, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { MagsError } from '@mags/protocol'
import type { Logger } from 'pino'
import { readRecord } from '../../recover/record-file.ts'
import { newSandboxId } from '../sandbox-id.ts'
import { bootGuest, type GuestParts } from './boot-guest.ts'
import { kernelCommandLine } from './command-line.ts'
import { saveState } from './migrate.ts'
import type { RamSealer, SealedRam } from './ram-sealer.ts'
import { rehearse } from './warm-up.ts'
import { DiskSlot, makeWorkspaceDisk } from './workspace-disk.ts'

/** What a template is made of; two with the same parts are interchangeable. */
export interface TemplateParts {
  readonly imageDigest: string
  readonly imageFile: string
  readonly vcpus: number
  readonly memoryMb: number
  readonly guest: GuestParts
}

/** A booted machine on disk that clones start from. */
export interface Template {
  /** RAM for `mem-path`, shared by all clones, copy on write. */
  readonly ramPath: string
  /** State of the devices, see `loadState`. */
  readonly stateFile: string
}

export interface TemplateStoreDeps {
  /** Templates live here between starts of the daemon. */
  readonly dir: string
  /** Where QEMU gets its root folder. */
  readonly vmDir: string
  /** User the template's QEMU runs as. */
  readonly uid: number
  readonly bootTimeoutMs: number
  readonly sealer: RamSealer | undefined
  readonly logger: Pick<Logger, 'info' | 'warn'>
  /** Folders of `vmDir` in use, which `sweep` must leave alone. */
  readonly ours: Set<string>
}

/** What is noted beside a template. */
interface TemplateDescription {
  readonly layoutVersion: number
  /** Absent in those of before images had versions. */
  readonly imageDigest?: string
  readonly stateBytes: number
  readonly memoryMb: number
}

const descriptionName = 'template.json'
/** So much longer may take what gets only what others leave of the processor. */
const patience = 5
const unusedDays = 14
const dayMs = 86_400_000

/** Changes when the devices, their order or the rehearsal change, so that older templates are not taken for new ones. */
const layoutVersion = 1

/** Templates by the digest of their parts; each is made at most once at a time, kept on disk and its RAM sealed once per daemon. */
export class TemplateStore {
  readonly #deps: TemplateStoreDeps
  readonly #open = new Map<string, Promise<Template & { readonly sealed: SealedRam | undefined }>>()
  readonly #making = new Set<Promise<void>>()
  readonly #closing = new AbortController()

  constructor(deps: TemplateStoreDeps) {
    this.#deps = deps
  }

  /** The template of these parts; made when there is none (seconds under emulation). Rejects with MagsError 'sandbox_failed' and the guest's last words. */
  get(parts: TemplateParts): Promise<Template> {
    const key = templateKey(parts)
    let template = this.#open.get(key)
    if (template === undefined) {
      template = this.#load(key, parts)
      this.#open.set(key, template)
      template.catch(() => this.#open.delete(key))
    }
    return template
  }

  /** Has the template of these parts on disk; what comes first to need it need not wait then. Runs at a low priority. Rejects as `get`. */
  async prepare(parts: TemplateParts): Promise<void> {
    const key = templateKey(parts)
    const dir = join(this.#deps.dir, key)
    if (!this.#open.has(key) && !(await isWhole(dir))) await this.#make(dir, parts, true)
  }

  /** Removes all templates of an image. */
  async forgetImage(digest: string): Promise<void> {
    const { dir } = this.#deps
    for (const name of await readdir(dir).catch(() => [])) {
      const description = await readRecord<TemplateDescription>(join(dir, name, descriptionName))
      if (description?.imageDigest === digest) await this.#remove(name)
    }
  }

  /** Forgets a template that a machine could not be started from; the next `get` makes it anew. */
  async discard(parts: TemplateParts): Promise<void> {
    await this.#remove(templateKey(parts))
  }

  async #remove(key: string): Promise<void> {
    const template = this.#open.get(key)
    this.#open.delete(key)
    await rm(join(this.#deps.dir, key), { recursive: true, force: true })
    await (await template?.catch(() => undefined))?.sealed?.release()
  }

  /** Removes half-made templates of dead daemons and those nobody used for two weeks. */
  async prune(): Promise<void> {
    const { dir } = this.#deps
    for (const name of await readdir(dir).catch(() => [])) {
      const path = join(dir, name)
      const ageMs = Date.now() - ((await stat(path).catch(() => undefined))?.mtimeMs ?? Date.now())
      if (ageMs > (name.endsWith('.part') ? dayMs : unusedDays * dayMs)) await rm(path, { recursive: true, force: true })
    }
  }

  /** Ends what is being made, too. */
  async close(): Promise<void> {
    this.#closing.abort()
    await Promise.allSettled(this.#making)
    const templates = await Promise.allSettled(this.#open.values())
    this.#open.clear()
    for (const template of templates) if (template.status === 'fulfilled') await template.value.sealed?.release()
  }

  async #load(key: string, parts: TemplateParts) {
    const dir = join(this.#deps.dir, key)
    if (!(await isWhole(dir))) await this.#make(dir, parts)
    const now = new Date()
    await utimes(dir, now, now)
    const ramFile = join(dir, 'ram')
    const sealed = await this.#deps.sealer?.seal(ramFile)
    return { ramPath: sealed?.path ?? ramFile, stateFile: join(dir, 'state'), sealed }
  }

  #make(dir: string, parts: TemplateParts, background = false): Promise<void> {
    const making = this.#makeNew(dir, parts, background)
    this.#making.add(making)
    return making.finally(() => this.#making.delete(making))
  }

  async #makeNew(dir: string, parts: TemplateParts, background: boolean): Promise<void> {
    if (this.#closing.signal.aborted) throw new MagsError('not_available', 'the server is stopping')
    const { vmDir, uid, bootTimeoutMs, logger, ours } = this.#deps
    const began = performance.now()
    logger.info({ vcpus: parts.vcpus, memoryMb: parts.memoryMb, accelerator: parts.guest.accelerator }, 'making a template of a virtual machine')
    await using undo = new AsyncDisposableStack()
    const draft = `${dir}.${randomBytes(4).toString('hex')}.part`
    await mkdir(draft, { recursive: true, mode: 0o700 })
    undo.defer(() => rm(draft, { recursive: true, force: true }))
    const id = newSandboxId()
    ours.add(id)
    undo.defer(() => void ours.delete(id))
    const directory = join(vmDir, id)
    await mkdir(directory, { recursive: true, mode: 0o710 })
    undo.defer(() => rm(directory, { recursive: true, force: true }))
    await chown(directory, 0, uid)

    const guest = await bootGuest(parts.guest, {
      directory,
      uid,
      vcpus: parts.vcpus,
      memoryMb: parts.memoryMb,
      ramFile: join(draft, 'ram'),
      imageFile: parts.imageFile,
      timeoutMs: background ? patience * bootTimeoutMs : bootTimeoutMs,
      background,
      abort: this.#closing.signal,
    })
    undo.defer(() => guest.machine.kill())
    undo.defer(() => guest.agent.close())
    const disk = await makeWorkspaceDisk(join(directory, 'disk.raw'), parts.guest.placeholderGb, uid)
    const slot = new DiskSlot(guest.machine.qmp, disk.sizeBytes)
    await slot.swapIn(disk)
    await rehearse(guest.agent, disk, { hostname: 'template' })
    await guest.agent.detachDisk()
    await slot.swapOut()
    guest.agent.close()
    await guest.machine.qmp.execute('stop')
    const state = { file: join(draft, 'state'), memory: false, memoryMb: parts.memoryMb }
    await saveState(guest.machine.qmp, { socketPath: join(directory, 'state.sock'), uid, ...state, timeoutMs: bootTimeoutMs })
    await guest.machine.kill()
    await writeFile(
      join(draft, descriptionName),
      JSON.stringify({ layoutVersion, imageDigest: parts.imageDigest, stateBytes: (await stat(join(draft, 'state'))).size, memoryMb: parts.memoryMb }),
    )
    // Another daemon of this machine may have made the same one meanwhile.
    if (!(await isWhole(dir))) {
      await rm(dir, { recursive: true, force: true })
      await rename(draft, dir)
    }
    logger.info({ ms: Math.round(performance.now() - began) }, 'a template of a virtual machine is ready')
  }
}

async function isWhole(dir: string): Promise<boolean> {
  const description = await readRecord<TemplateDescription>(join(dir, descriptionName))
  if (description?.layoutVersion !== layoutVersion) return false
  const [ram, state] = await Promise.all([stat(join(dir, 'ram')).catch(() => undefined), stat(join(dir, 'state')).catch(() => undefined)])
  return ram?.size === description.memoryMb * 2 ** 20 && state?.size === description.stateBytes
}

function templateKey(parts: TemplateParts): string {
  const { guest } = parts
  const identity = [
    layoutVersion,
    parts.imageDigest,
    parts.vcpus,
    parts.memoryMb,
    guest.kernelDigest,
    guest.initramfs.digest,
    guest.qemuVersion,
    guest.accelerator,
    guest.cpuModel,
    guest.placeholderGb,
    kernelCommandLine({ accelerator: guest.accelerator, tscKhz: 0 }),
    // A guest under emulation has the host's frequency in it; the last digits vary from boot to boot.
    guest.accelerator === 'tcg' ? Math.round(guest.tscKhz / 1000) : 0,
  ]
  return createHash('sha256').update(JSON.stringify(identity)).digest('hex').slice(0, 32)
}
