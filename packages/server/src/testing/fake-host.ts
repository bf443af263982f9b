import type { HostApi, HostCapabilities, OutputSink, PoolStatus, RunningSandbox, SandboxLease, SandboxSpec, ScriptSpec } from '@mags/protocol'
import { FakeImages } from './fake-images.ts'
import { FakeSandbox } from './fake-sandbox.ts'
import { type FakeBehaviour, interpret } from './fake-script.ts'
import { FakeWorkspaces } from './fake-workspaces.ts'

export interface FakeHostOptions {
  /** What scripts do; default {@link interpret}. */
  readonly behaviour?: FakeBehaviour
  readonly capabilities?: Partial<HostCapabilities>
  /** Called before a sandbox is handed out; may wait or throw. */
  readonly ignoresAbort?: boolean
  readonly beforeAcquire?: (spec: SandboxSpec, abort: AbortSignal | undefined, onProgress: (words: string) => void) => Promise<void> | void
  /** Called before a script is started; may wait or throw. */
  readonly beforeRun?: (script: ScriptSpec) => Promise<void> | void
}

const fakeCapabilities: HostCapabilities = {
  default: 'container',
  vm: { available: false, detail: 'no KVM' },
  container: { available: true, detail: 'fake' },
  images: ['debian-12', 'alpine'],
  imageDigests: { 'debian-12': 'sha256:d12', alpine: 'sha256:a3' },
  defaultImage: 'debian-12',
  maxVcpus: 4,
  maxMemoryMb: 4096,
  maxDiskGb: 20,
  addressPrefixes: [],
}

/** A host without sandboxes, for tests of the server. It outlives servers: a second one can adopt what the first left. */
export class FakeHost implements HostApi {
  readonly sandboxes = new Map<string, FakeSandbox>()
  readonly workspaces = new FakeWorkspaces()
  readonly images: FakeImages
  readonly acquired: SandboxSpec[] = []
  /** What adopted sandboxes were asked to be. */
  readonly adopted: { readonly sandboxId: string; readonly asleep: boolean }[] = []
  /** Awaited by `sleep`, `wake` and `hibernate` of every sandbox; may throw. */
  beforeSleep: (sandbox: FakeSandbox) => Promise<void> | void = () => undefined
  beforeWake: (sandbox: FakeSandbox) => Promise<void> | void = () => undefined
  beforeHibernate: (sandbox: FakeSandbox) => Promise<void> | void = () => undefined
  /** Awaited before a script is started; may throw. */
  beforeRun: (script: ScriptSpec) => Promise<void> | void
  /** Awaited before a copy is made; may throw. */
  beforeFork: (spec: SandboxSpec, abort: AbortSignal | undefined) => Promise<void> | void = () => undefined
  /** Whether an init does as it is told. */
  heedsPowerOff = true
  /** When the services of an init are up. */
  booted: Promise<void> = Promise.resolve()
  /** Whether its sandboxes can hibernate, and what a fork takes along. */
  hibernates = false
  forksMemory = false
  settled = 0
  released = 0
  readonly #options: FakeHostOptions

  constructor(options: FakeHostOptions = {}) {
    this.#options = options
    const { imageDigests, defaultImage } = { ...fakeCapabilities, ...options.capabilities }
    this.images = new FakeImages(imageDigests, defaultImage)
    this.beforeRun = options.beforeRun ?? (() => undefined)
  }

  capabilities(): HostCapabilities {
    const imageDigests = Object.fromEntries(this.images.all.flatMap(({ name, digest, current }) => (current ? [[name, digest]] : [])))
    return { ...fakeCapabilities, images: Object.keys(imageDigests), imageDigests, defaultImage: this.images.defaultImage, ...this.#options.capabilities }
  }

  async acquire(spec: SandboxSpec, abort?: AbortSignal, onProgress: (words: string) => void = () => undefined): Promise<SandboxLease> {
    const startedAt = performance.now()
    this.acquired.push(spec)
    await this.#options.beforeAcquire?.(spec, abort, onProgress)
    if (!this.#options.ignoresAbort) abort?.throwIfAborted()
    return this.lease(spec, performance.now() - startedAt)
  }

  /** A machine; perhaps a copy of another one. */
  lease(spec: SandboxSpec, acquireMs = 0, source?: FakeSandbox): SandboxLease {
    const sandbox = new FakeSandbox(this, this.#options.behaviour ?? interpret, spec, source?.files)
    const takesOver = source !== undefined && this.forksMemory
    this.sandboxes.set(sandbox.sandboxId, sandbox)
    void sandbox.gone.then(() => this.sandboxes.delete(sandbox.sandboxId))
    return {
      sandboxId: sandbox.sandboxId,
      isolation: 'container',
      acquireMs,
      warm: true,
      run: async (script, sink) => {
        try {
          await this.beforeRun(script)
        } catch (error) {
          await sandbox.destroy()
          throw error
        }
        for (const file of script.files ?? []) await sandbox.files.write(file.path, file.content())
        if (takesOver) sandbox.takeOver(source, sink)
        else sandbox.begin(script, sink)
        return sandbox
      },
      release: () => {
        this.released++
        return sandbox.destroy()
      },
    }
  }

  async adopt(sandboxId: string, resume: { stdout: number; stderr: number; asleep?: boolean }, sink: OutputSink): Promise<RunningSandbox | undefined> {
    const sandbox = this.sandboxes.get(sandboxId)
    this.adopted.push({ sandboxId, asleep: resume.asleep ?? false })
    // As the real one: what only sleeps is let go on unless it is to sleep on.
    if (sandbox?.state === 'asleep' && !resume.asleep) sandbox.state = 'awake'
    sandbox?.resume(resume, sink)
    return sandbox
  }

  async settle(): Promise<void> {
    this.settled++
  }

  poolStatus(): PoolStatus {
    const sleeping = [...this.sandboxes.values()].filter(({ state }) => state !== 'awake').length
    return { idle: 3, busy: this.sandboxes.size - sleeping, sleeping, minSize: 3, maxSize: 0, hitRate: 1 }
  }

  async close(): Promise<void> {
    await Promise.all([...this.sandboxes.values()].map((sandbox) => sandbox.destroy()))
  }
}
