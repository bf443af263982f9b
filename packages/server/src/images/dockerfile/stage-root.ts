import { type HostApi, type ImageInfo, MagsError, type RunningSandbox, type SandboxLease, type SandboxSpec } from '@mags/protocol'
import type { CacheOfBuild } from '../cache/cache-of-build.ts'
import type { StageStorage } from '../cache/stage-storage.ts'
import type { SavedState } from '../cache/store.ts'
import { CacheFault } from './cache-fault.ts'

/** What the files of a stage begin as: those of an image, those of an instruction in the cache, or those that another stage has in its sandbox. */
export type Beginning = { readonly kind: 'image' } | { readonly kind: 'saved'; readonly saved: SavedState } | { readonly kind: 'copy'; readonly of: StageRoot }

export interface StageRootDeps {
  readonly host: HostApi
  readonly cache: CacheOfBuild | undefined
  readonly say: (words: string) => void
  readonly abort: AbortSignal
}

const memoryMb = 1024
const diskGb = 10

/**
 * The files of a stage, or of an image that files are copied from. There is a sandbox only once somebody needs it.
 *
 *     closed ──open──▶ open ──rest──▶ closed (its files are in the cache)
 */
export class StageRoot implements AsyncDisposable {
  readonly image: ImageInfo
  /** Of the files as they are now; undefined when that is not known. */
  key: string | undefined
  readonly #deps: StageRootDeps
  #beginning: Beginning
  #saved: SavedState | undefined
  #sandbox: Promise<RunningSandbox> | undefined
  #storage: StageStorage | undefined
  /** Nothing changes them any more. */
  #done: boolean

  /** `done`: they are only read. */
  constructor(
    deps: StageRootDeps,
    begin: { readonly image: ImageInfo; readonly beginning: Beginning; readonly key: string | undefined; readonly done: boolean },
  ) {
    this.#deps = deps
    this.image = begin.image
    this.key = begin.key
    this.#beginning = begin.beginning
    this.#saved = begin.beginning.kind === 'saved' ? begin.beginning.saved : undefined
    this.#done = begin.done
  }

  /** Where the files are in the cache as they are now. */
  get saved(): SavedState | undefined {
    return this.#saved
  }

  /** Goes on with what the cache has, instead of running what leads there. Nothing was run before. */
  skipTo(key: string | undefined, saved: SavedState): void {
    this.key = key
    this.#saved = saved
    this.#beginning = { kind: 'saved', saved }
  }

  /** Its sandbox; begins one when there is none. Rejects with CacheFault when it cannot begin as the cache has it. */
  async open(): Promise<RunningSandbox> {
    this.#sandbox ??= this.#start()
    const sandbox = await this.#sandbox
    this.#deps.abort.throwIfAborted()
    return sandbox
  }

  /** An instruction was done, after which the files have this key. */
  async stepDone({ key, kept }: { readonly key: string | undefined; readonly kept: boolean }): Promise<void> {
    if (key === this.key) return
    this.key = key
    this.#saved = undefined
    if (kept) await this.#save()
  }

  /** All instructions were done. `rests`: nobody needs its sandbox now. */
  async finish({ rests }: { readonly rests: boolean }): Promise<void> {
    if (this.#saved === undefined) await this.#save()
    this.#done = true
    if (!rests || this.#saved === undefined || this.#storage === undefined) return
    await this.#end()
    this.#beginning = { kind: 'saved', saved: this.#saved }
  }

  /** What a stage begins as that goes on from this one, after `finish`. */
  get end(): Beginning {
    if (this.#saved !== undefined) return { kind: 'saved', saved: this.#saved }
    return this.#sandbox === undefined ? this.#beginning : { kind: 'copy', of: this }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#end()
  }

  async #save(): Promise<void> {
    if (this.#storage === undefined || this.#sandbox === undefined || this.key === undefined) return
    this.#saved = await this.#storage.save(await this.#sandbox, this.key, this.#deps.abort)
  }

  async #end(): Promise<void> {
    const storage = this.#storage
    const sandbox = await this.#sandbox?.catch(() => undefined)
    this.#storage = undefined
    this.#sandbox = undefined
    const finished = storage !== undefined && sandbox !== undefined && this.#done && this.#saved !== undefined && (await storage.finish(sandbox))
    await sandbox?.destroy()
    await storage?.close(finished)
  }

  async #start(): Promise<RunningSandbox> {
    const { host, cache, say, abort } = this.#deps
    const beginning = this.#beginning
    if (beginning.kind === 'copy') return await this.#copy(beginning.of)
    const saved = beginning.kind === 'saved' ? beginning.saved : undefined
    try {
      if (cache !== undefined && !this.#done) this.#storage = await cache.begin(say)
      const places = {
        ...(saved === undefined ? {} : { base: saved }),
        ...(this.#storage === undefined ? {} : { workspace: this.#storage.hold }),
      }
      return await run(await host.acquire({ ...this.#spec(), ...places }, abort, say))
    } catch (error) {
      abort.throwIfAborted()
      throw saved === undefined && this.#storage === undefined ? error : new CacheFault(saved, error)
    }
  }

  async #copy(of: StageRoot): Promise<RunningSandbox> {
    const { cache, abort } = this.#deps
    try {
      const { lease } = await (await of.open()).fork(this.#spec(), abort)
      return await run(lease)
    } catch (error) {
      abort.throwIfAborted()
      if (error instanceof CacheFault) throw error
      // What it is a copy of could not be saved, and a copy would be made by saving it.
      if (cache !== undefined) throw new CacheFault(undefined, error)
      if (!(error instanceof MagsError) || error.code !== 'not_available') throw error
      throw new MagsError('not_available', `a stage cannot begin as another one ended on this server: ${error.message}`, { cause: error })
    }
  }

  #spec(): SandboxSpec {
    const { maxVcpus, maxMemoryMb, maxDiskGb } = this.#deps.host.capabilities()
    return {
      image: this.image.name,
      imageDigest: this.image.digest,
      isolation: 'auto',
      vcpus: Math.min(2, maxVcpus),
      memoryMb: Math.min(memoryMb, maxMemoryMb),
      diskGb: Math.min(diskGb, maxDiskGb),
      persistent: false,
    }
  }
}

async function run(lease: SandboxLease): Promise<RunningSandbox> {
  return await lease.run({ script: 'while sleep 3600; do :; done', environment: {} }, async () => undefined)
}
