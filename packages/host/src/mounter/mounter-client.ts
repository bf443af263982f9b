import type { ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { constants } from 'node:os'
import type { ProcessIdentity } from '../recover/process-identity.ts'
import { startResident } from '../run.ts'
import { encodeRequest, type MounterOp, type MounterReply, RepliesReader } from './mounter-frames.ts'

/** An overlay for a container. */
export interface RootLayers {
  /** First of the 65,536 host ids that the container's are mapped to. */
  readonly uidBase: number
  /** The upper need not survive a crash of the machine: syncs become free. */
  readonly volatile: boolean
  /** Topmost first. */
  readonly lowerDirs: readonly string[]
  /** Holds `u` and `w`. */
  readonly upperDir: string
}

export interface AttachRequest extends RootLayers {
  /** First process of the container. */
  readonly process: ProcessIdentity
}

export interface MountRootRequest extends RootLayers {
  /** Where; in the daemon's mounts. */
  readonly dir: string
  /** The ids of the layers are shifted (see `shift`) rather than mapped. */
  readonly shifted: boolean
}

export interface MounterOptions {
  readonly binary: string
  readonly logFile: string
  /** Where the mounter listens for who wants to read or fill a layer; without it, it does not. */
  readonly layerSocket?: string
}

/** What the kernel refused, and at which step. */
export class MounterError extends Error {
  readonly errno: number
  constructor(what: string, { errno, message }: { readonly errno: number; readonly message: string }) {
    super(`${what}: ${message}`)
    this.name = 'MounterError'
    this.errno = errno
  }
}

const rootVolatile = 1
const rootShifted = 2
const upperKeep = 1
/** Space that is freed inside is freed in the image, too. */
const imageDiscard = 1
const imageNoAccessTimes = 2
const imageReadOnly = 4

/**
 * The resident helper that does what needs the mount calls of the kernel (native/mounter). Everything it mounts is in a mount namespace of its own and gone with it.
 *
 *     running ──close, death──▶ ended: every call rejects
 */
export class MounterClient {
  readonly #child: ChildProcess
  readonly #waiting = new Map<number, { resolve: (reply: MounterReply) => void; reject: (error: Error) => void; what: string }>()
  #lastId = 0
  #ended: Error | undefined
  #closing = false
  readonly #died = Promise.withResolvers<Error>()

  /** See {@link MounterOptions}. */
  readonly layerSocket: string | undefined

  private constructor(child: ChildProcess, layerSocket: string | undefined) {
    this.#child = child
    this.layerSocket = layerSocket
    const replies = new RepliesReader()
    child.stdout?.on('data', (bytes: Buffer) => {
      for (const reply of replies.push(bytes)) this.#settle(reply)
    })
    child.stdin?.on('error', () => undefined)
    child.once('error', (error) => this.#fail(error))
    child.once('exit', (code, signal) => this.#fail(new Error(`the mounter ended (${signal ?? `exit ${code}`})`)))
  }

  static async start({ binary, logFile, layerSocket }: MounterOptions): Promise<MounterClient> {
    const child = startResident(binary, layerSocket === undefined ? [] : ['serve', layerSocket], { logFile, stdin: 'pipe', stdout: 'pipe' })
    await once(child, 'spawn')
    return new MounterClient(child, layerSocket)
  }

  /** Settles when it ends although it was not closed, with why: all it had mounted is gone, and nothing can be mounted any more. */
  get died(): Promise<Error> {
    return this.#died.promise
  }

  get pid() {
    return this.#child.pid ?? 0
  }

  /** Builds a small overlay of idmapped layers in this folder and writes through it. Rejects with the step that the kernel or file system refuses. */
  async probe(dir: string) {
    await this.#call({ op: 'probe', dir }, `overlay on idmapped layers in ${dir}`)
  }

  /** Makes the user namespace for these ids ahead of time. */
  async prepare(uidBase: number) {
    await this.#call({ op: 'prepare', uidBase }, 'prepare ids')
  }

  /** Makes an overlay the root of a container in which no program of a user has run yet; again and again. */
  async attach({ process, ...layers }: AttachRequest) {
    await this.#call({ op: 'attach', process, ...layers, flags: layers.volatile ? rootVolatile : 0 }, 'attach')
  }

  /** Mounts an overlay on a folder where the programs of `run` see it. */
  async mountRoot({ dir, shifted, ...layers }: MountRootRequest) {
    const flags = (layers.volatile ? rootVolatile : 0) | (shifted ? rootShifted : 0)
    await this.#call({ op: 'mount-root', dir, ...layers, flags }, `mount a root on ${dir}`)
  }

  /** Takes it from there; a container that was started with it keeps it. */
  async unmountRoot(dir: string) {
    await this.#call({ op: 'unmount-root', dir }, `unmount the root on ${dir}`)
  }

  /** Makes `dir/u` a layer over an image in which every inode has the owner it has in the range of ids. Takes as long as a walk through the image. */
  async shift({ uidBase, imageDir, dir }: { uidBase: number; imageDir: string; dir: string }) {
    await this.#call({ op: 'shift', uidBase, imageDir, dir }, `shift the ids of ${imageDir}`)
  }

  /** Mounts an ext4 image on a folder, seen only by the mounter. Where its file system is mounted already, by a daemon before this one or in a sandbox, that one comes to light here, too. */
  async mountImage(file: string, dir: string, { readOnly = false }: { readonly readOnly?: boolean } = {}) {
    const flags = imageDiscard | imageNoAccessTimes | (readOnly ? imageReadOnly : 0)
    await this.#call({ op: 'mount-image', file, dir, flags }, `mount ${file}`)
  }

  async unmount(dir: string) {
    await this.#call({ op: 'unmount', dir }, `unmount ${dir}`)
  }

  /** Empties `u` and `w` of an upper's folder, or makes them (and it); with `keep` a `u` that is there stays as it is. Resolves with how many entries went. */
  async resetUpper(dir: string, { keep = false }: { readonly keep?: boolean } = {}): Promise<number> {
    const { value } = await this.#call({ op: 'reset-upper', dir, flags: keep ? upperKeep : 0 }, `empty ${dir}`)
    return value
  }

  /**
   * As `resetUpper` that keeps `u`, of which only the folder of this name at its top stays; the rest is moved out of it, by renames alone. With lower layers, topmost first, the folder is made when neither `u`
   * nor they have it. Resolves with whether something is left for `sweepUpper`. When it rejects, or this process ends, it may be done again.
   */
  async narrowUpper({ dir, folder, lowerDirs }: { readonly dir: string; readonly folder: string; readonly lowerDirs: readonly string[] }): Promise<boolean> {
    const { value } = await this.#call({ op: 'narrow-upper', dir, folder, lowerDirs }, `keep only ${folder} of ${dir}`)
    return value !== 0
  }

  /** Removes some of what `narrowUpper` moved away, at most so many entries; also while `u` is in use. Resolves with whether more is left. */
  async sweepUpper(dir: string, most: number): Promise<boolean> {
    const { value } = await this.#call({ op: 'sweep-upper', dir, most }, `remove what was taken out of ${dir}`)
    return value !== 0
  }

  /**
   * Runs a program with the daemon's mounts, an empty standard input and its output appended to a file; resolves with its exit code. For the background work of a busy pool: starting
   * a program from here costs the daemon's event loop milliseconds, asking the mounter to do it nothing.
   */
  async run(argv: readonly string[], options: { readonly logFile: string; readonly timeoutMs: number }): Promise<number> {
    const { value } = await this.#call({ op: 'run', argv, ...options }, argv[0] ?? 'run')
    return value
  }

  /** A copy of a file in memory that nobody can change any more; `path` can be opened while this process lives. */
  async seal(file: string): Promise<{ path: string; release(): Promise<void> }> {
    const { value: fd } = await this.#call({ op: 'seal', file }, `seal ${file}`)
    const release = async () => {
      await this.#call({ op: 'unseal', fd }, 'unseal')
    }
    return { path: `/proc/${this.pid}/fd/${fd}`, release }
  }

  /** SIGKILL to exactly this process, and waits for its end. No error when it is gone already. */
  async kill(process: ProcessIdentity, timeoutMs: number) {
    await this.#call({ op: 'kill', process, timeoutMs }, `kill ${process.pid}`).catch((error: unknown) => {
      if (!(error instanceof MounterError) || error.errno !== constants.errno.ESRCH) throw error
    })
  }

  async close() {
    this.#closing = true
    if (this.#child.exitCode !== null || this.#child.signalCode !== null) return
    const exit = once(this.#child, 'exit')
    this.#child.stdin?.end()
    await exit
  }

  #call(op: MounterOp, what: string): Promise<MounterReply> {
    if (this.#ended !== undefined) return Promise.reject(this.#ended)
    const id = ++this.#lastId
    const { promise, resolve, reject } = Promise.withResolvers<MounterReply>()
    this.#waiting.set(id, { resolve, reject, what })
    this.#child.stdin?.write(encodeRequest(id, op))
    return promise
  }

  #settle(reply: MounterReply) {
    const waiting = this.#waiting.get(reply.id)
    this.#waiting.delete(reply.id)
    if (waiting === undefined) return
    if (reply.errno === 0) waiting.resolve(reply)
    else waiting.reject(new MounterError(waiting.what, reply))
  }

  #fail(error: Error) {
    this.#ended = error
    if (!this.#closing) this.#died.resolve(error)
    for (const { reject } of this.#waiting.values()) reject(error)
    this.#waiting.clear()
  }
}
