import { rm } from 'node:fs/promises'
import { setTimeout as delay } from 'node:timers/promises'
import { MagsError, type WorkspaceSaved, type WorkspaceVersion } from '@mags/protocol'
import type { Logger } from 'pino'
import type { Sandbox } from '../../drivers/driver.ts'
import type { LayerSession } from '../../layers/layer-session.ts'
import type { Manifest, WorkspaceRepository } from '../repository/repository.ts'
import type { SaveState } from '../save/save-state.ts'
import { saveTree } from '../save/save-tree.ts'
import { readState, writeState } from '../save/state-file.ts'
import type { LayerDisks } from './layer-disks.ts'
import { scopeFolder } from './scope-folder.ts'
import type { WorkingCopies } from './working-copies.ts'
import { isReadable, type WorkingCopy } from './working-copy.ts'
import { WorkspaceSession } from './workspace-session.ts'

export interface OpenWorkspaceDeps {
  readonly repository: WorkspaceRepository
  readonly copies: WorkingCopies
  readonly disks: LayerDisks
  readonly logger: Pick<Logger, 'warn'>
}

const nanosPerMs = 1_000_000n
/** A guest's clock is set when it starts and may fall behind ours; a stamp younger than that proves nothing. */
const guestClockSlackMs = 2_000
/** Next to nothing is to be written out. */
const restWithinMs = 10_000

interface Uncommitted {
  readonly manifest: Manifest
  readonly uploadedBytes: number
}

/** The running sandbox a workspace is saved from. */
export type SavedSandbox = Pick<Sandbox, 'id' | 'openLayer' | 'activity' | 'quiesce' | 'resume' | 'halt' | 'lostWrites'>

/**
 * The workspace of one sandbox, from attach to the sandbox's end.
 *
 *     open ──save(final)──▶ saved ──close──▶ closed
 *       └────────────────close─────────────────▲     (what was not saved is left for later)
 */
export class OpenWorkspace {
  readonly storageId: string
  readonly #deps: OpenWorkspaceDeps
  readonly #sandbox: SavedSandbox
  /** One for all saves of a sandbox: the worker remembers what it saw last. */
  #session: LayerSession | undefined
  #state: SaveState | undefined
  #under: Manifest | undefined
  /** In packs, but not committed: the store failed in between. */
  #uncommitted: Uncommitted | undefined
  /** What we thought was stored is not all there. */
  #distrustful = false
  #lastSaved: WorkspaceSaved | undefined
  #lastActivity: bigint | undefined
  #saving: Promise<unknown> = Promise.resolve()
  #saved = false
  /** The disk held changes of an earlier guest. */
  #foundLeft = false
  /** Why its disk does not have all that was written to it. */
  #lost: string | undefined
  #closing: Promise<void> | undefined
  readonly #closed = Promise.withResolvers<void>()

  constructor(deps: OpenWorkspaceDeps, sandbox: SavedSandbox, storageId: string) {
    this.#deps = deps
    this.#sandbox = sandbox
    this.storageId = storageId
  }

  /** Settles when another sandbox may have it. */
  get closed(): Promise<void> {
    return this.#closed.promise
  }

  /** One save at a time; a second waits for the first. Rejects as `RunningSandbox.saveWorkspace` does. */
  save(options: { readonly final: boolean }): Promise<WorkspaceSaved> {
    const saved = this.#saving.then(() => this.#save(options))
    this.#saving = saved.catch(() => undefined)
    return saved
  }

  /** Whether what was not saved can be read once the sandbox is gone. */
  get keepsUnsaved(): boolean {
    return this.#lost === undefined && isReadable(this.#copy())
  }

  /** All is saved, and nothing runs in its sandbox any more. */
  get ends(): boolean {
    return this.#saved
  }

  /** The connection over which its layer was read is gone; the next save makes another. Not while one is being made. */
  disconnected() {
    this.#endSession()
  }

  /** Before the sandbox gets the disk. Until then nothing has written to it, so what an earlier sandbox left on it outlives this one. */
  async begin() {
    if (!this.#copy().halted) return
    this.#foundLeft = true
    await this.#deps.copies.set({ ...this.#copy(), halted: false })
  }

  /** After a start that failed: nothing ran, so what an earlier sandbox left on the disk is whole, once what is in the machine's memory is written out. */
  async rest() {
    if (this.#foundLeft) await Promise.race([this.#halt(), delay(restWithinMs, undefined, { ref: false })])
  }

  /** To be called when the sandbox is gone and its disks are free. Idempotent. */
  close(): Promise<void> {
    this.#closing ??= this.#close().finally(() => this.#closed.resolve())
    return this.#closing
  }

  async #save({ final }: { readonly final: boolean }): Promise<WorkspaceSaved> {
    if (this.#closing !== undefined) throw new MagsError('sandbox_failed', 'the sandbox ended before its workspace could be saved')
    if (final) await this.#halt()
    try {
      return await this.#saveOpen(final)
    } catch (error) {
      // The worker may be in the middle of an answer: the next save begins a new conversation.
      this.#endSession()
      if (this.#lost === undefined) await this.#requireWhole({ suspicious: true })
      throw error
    }
  }

  async #halt() {
    if (this.#copy().halted) return
    await this.#sandbox.halt()
    await this.#deps.copies.set({ ...this.#copy(), halted: true })
  }

  async #saveOpen(final: boolean): Promise<WorkspaceSaved> {
    try {
      return await this.#saveOnce(final)
    } catch (error) {
      if (!(error instanceof MagsError) || error.code !== 'workspace_damaged' || this.#distrustful || this.#lost !== undefined) throw error
      // After a pause of hours packs that we think are stored may have been collected: everything is read and stored anew, once.
      this.#distrustful = true
      this.#state = undefined
      this.#uncommitted = undefined
      this.#endSession()
      return await this.#saveOnce(final)
    }
  }

  async #saveOnce(final: boolean): Promise<WorkspaceSaved> {
    const { repository } = this.#deps
    const copy = this.#copy()
    // Before the layer is looked at: what runs from now on counts for the next time.
    const activity = await this.#sandbox.activity()
    if (this.#lastSaved !== undefined && activity !== undefined && activity === this.#lastActivity) {
      this.#saved = final
      return { ...this.#lastSaved, changed: false }
    }
    const result = await this.#saveTree(copy, final)
    // What was read may have been in memory only.
    await this.#requireWhole({ suspicious: false })
    this.#state = result.state
    if (result.changed || copy.version === 0 || this.#uncommitted !== undefined || this.#distrustful) {
      this.#uncommitted = { manifest: result.manifest, uploadedBytes: result.uploadedBytes + (this.#uncommitted?.uploadedBytes ?? 0) }
    }
    const changed = this.#uncommitted !== undefined
    const committed = this.#uncommitted && (await this.#commit(this.#uncommitted))
    const version = committed ?? this.#lastSaved?.version ?? (await repository.manifest(this.storageId, copy.version)).version
    this.#saved = final
    this.#lastActivity = activity
    this.#lastSaved = { version, changed, skippedCount: result.skippedCount }
    return this.#lastSaved
  }

  /** Rejects with MagsError 'workspace_damaged' when something that was written is not on the disk and never will be: a save would keep holes for it. */
  async #requireWhole(options: { readonly suspicious: boolean }) {
    const lost = this.#lost ?? (await this.#sandbox.lostWrites?.(options))
    if (lost === undefined) return
    if (this.#lost === undefined) {
      this.#lost = lost
      // On a disk that is full this may fail; `close` forgets the copy all the same.
      await this.#deps.copies.set({ ...this.#copy(), damaged: true }).catch(() => undefined)
    }
    throw new MagsError('workspace_damaged', lost, { details: { lost: true } })
  }

  async #saveTree(copy: WorkingCopy, final: boolean) {
    const { repository, disks } = this.#deps
    const [top, below] = copy.layers
    if (top === undefined) throw new MagsError('internal', `workspace ${this.storageId} has no layer`)
    const scope = copy.scope === undefined ? undefined : scopeFolder(copy.scope)
    this.#session ??= new WorkspaceSession(await this.#sandbox.openLayer(scope), scope)
    if (!this.#distrustful) this.#state ??= await readState(disks.stateFile(top))
    const isNew = this.#state === undefined && copy.version > 0 && !this.#distrustful
    return await saveTree({
      session: this.#session,
      previous: this.#state,
      lower: below === undefined ? undefined : await this.#treeUnder(below, copy),
      known: isNew ? (await repository.manifest(this.storageId, copy.version)).manifest : undefined,
      packs: repository.packs,
      image: copy.image,
      guard: final ? undefined : { freeze: () => this.#sandbox.quiesce(), thaw: () => this.#sandbox.resume() },
      clock: () => BigInt(Date.now() - (copy.writtenBy === 'guest' ? guestClockSlackMs : 0)) * nanosPerMs,
    })
  }

  async #commit({ manifest, uploadedBytes }: Uncommitted): Promise<WorkspaceVersion> {
    const { repository, copies, disks } = this.#deps
    const { claim, layers } = this.#copy()
    if (claim === undefined) throw new MagsError('internal', `workspace ${this.storageId} was not made ready for saving`)
    // What is known of the layer is of the version before. Should we end before it is written anew, then the next one must not take it for this one's.
    await rm(disks.stateFile(layers[0] ?? ''), { force: true })
    const committed = await repository.commit(claim, manifest, { reason: 'sync', uploadedBytes })
    this.#uncommitted = undefined
    await copies.set({ ...this.#copy(), claim: committed.claim, version: committed.version.version })
    return committed.version
  }

  /** The version that the layers under the topmost are. */
  async #treeUnder(below: string, copy: WorkingCopy): Promise<Manifest> {
    this.#under ??= (await readState(this.#deps.disks.stateFile(below)))?.manifest
    this.#under ??= (await this.#deps.repository.manifest(this.storageId, copy.versionUnder)).manifest
    return this.#under
  }

  async #close() {
    await this.#saving
    this.#endSession()
    const { copies, disks } = this.#deps
    const { sandboxId: _, ...copy } = this.#copy()
    const [top] = copy.layers
    if (!this.keepsUnsaved) {
      const words = this.#lost ?? 'a machine was lost with what it had not saved of its workspace'
      this.#deps.logger.warn({ workspace: this.storageId, version: copy.version }, words)
      return await copies.conclude(this.storageId, undefined)
    }
    if (!this.#saved || top === undefined) return await copies.conclude(this.storageId, copy)
    // Without it the next save reads everything.
    if (this.#state !== undefined)
      await writeState(disks.stateFile(top), this.#state).catch((error: unknown) =>
        this.#deps.logger.warn({ err: error }, 'what is known of a layer could not be noted'),
      )
    await copies.conclude(this.storageId, { ...copy, open: false, halted: false })
  }

  #copy(): WorkingCopy {
    const copy = this.#deps.copies.get(this.storageId)
    if (copy === undefined) throw new MagsError('internal', `workspace ${this.storageId} is not on this machine`)
    return copy
  }

  #endSession() {
    this.#session?.close()
    this.#session = undefined
  }
}
