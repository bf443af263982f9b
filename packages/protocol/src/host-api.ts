/**
 * The seam between the server (what is asked) and the host (how it runs on this machine). Only plain data and callbacks with plain
 * data cross it, so that it can become HTTP between machines.
 */

/** Which wall stands around a sandbox. `emulated-vm` is the vm driver without KVM. */
export type Isolation = 'kvm' | 'emulated-vm' | 'container'
/** What a job may ask for. */
export type IsolationWish = 'auto' | 'vm' | 'container'

/** The machine a job needs. */
export interface SandboxSpec {
  readonly image: string
  readonly isolation: IsolationWish
  readonly vcpus: number
  readonly memoryMb: number
  readonly diskGb: number
  /** Outlives the daemon when true (see `adopt`); otherwise freed by the next start. */
  readonly persistent: boolean
}

/** What runs in it first. */
export interface ScriptSpec {
  readonly script: string
  readonly environment: Readonly<Record<string, string>>
}

export type OutputSource = 'stdout' | 'stderr' | 'system'

/** `offset` counts the stream's bytes from the start of the script; for `system` it is 0. */
export interface OutputChunk {
  readonly source: OutputSource
  readonly offset: number
  readonly bytes: Uint8Array
}

/**
 * Where a sandbox's output goes. The returned promise settles once the chunk is safe; only then is it acknowledged to the sandbox, which holds
 * at most a window of output until then. Returning 'discard' tells the sandbox to drop the rest of that stream by itself.
 */
export type OutputSink = (chunk: OutputChunk) => Promise<undefined | 'discard'>

/** Why a script's first process is no more. */
export interface ScriptExit {
  readonly kind: 'exited' | 'signalled' | 'not-started' | 'sandbox-lost'
  /** Exit code as a shell would give it (128 + signal). */
  readonly exitCode: number
  /** Words for the job's system log when there is more to say (out of memory, sandbox died, …). */
  readonly reason?: string
  readonly userCpuMs?: number
  readonly systemCpuMs?: number
  readonly maxRssKb?: number
}

export interface ExecRequest {
  readonly command: readonly string[]
  readonly environment?: Readonly<Record<string, string>>
  readonly cwd?: string
  /** Whole standard input; absent means /dev/null. */
  readonly stdin?: Uint8Array
  readonly timeoutMs: number
}

/** A machine that was taken for a job; its script has not started. */
export interface SandboxLease {
  /** Twelve lower-case hex digits: the `vm_id` of the API. Stored by the server before `run`, so that a crash cannot run a script twice. */
  readonly sandboxId: string
  readonly isolation: Isolation
  /** Waiting for and taking a warm sandbox, or making one; milliseconds with fractions. */
  readonly acquireMs: number
  /** True when a warm sandbox was there at once. */
  readonly warm: boolean
  /** Gives the machine its root and identity and starts the script. Rejects with MagsError('sandbox_failed'); the machine is then gone. */
  run(script: ScriptSpec, sink: OutputSink): Promise<RunningSandbox>
  /** Gives it back unused (it is destroyed). */
  release(): Promise<void>
}

/** A sandbox that runs a job. */
export interface RunningSandbox {
  readonly sandboxId: string
  readonly isolation: Isolation
  /** Root file system, identity and handing the script over; milliseconds with fractions. */
  readonly attachMs: number
  /** Settles when the script's first process ended and its output so far is in the sink; never rejects. */
  readonly exited: Promise<ScriptExit>
  /** Settles when the sandbox is gone, whoever ended it; never rejects. */
  readonly gone: Promise<void>
  /** Signal to the script's process group. */
  signal(signal: number): Promise<void>
  /** One more program; rejects with MagsError('sandbox_failed') when the sandbox is lost. */
  exec(
    request: ExecRequest,
    onOutput: (source: 'stdout' | 'stderr', bytes: Uint8Array) => Promise<void> | void,
    abort?: AbortSignal,
  ): Promise<ScriptExit & { timedOut: boolean }>
  /** Ends every process, frees everything lent; idempotent. */
  destroy(): Promise<void>
}

export interface PoolStatus {
  readonly idle: number
  readonly busy: number
  readonly sleeping: number
  readonly minSize: number
  readonly maxSize: number
  /** Share of takes that found a warm sandbox, 0 to 1; 1 before the first. */
  readonly hitRate: number
  /** Why the last attempt to make a sandbox failed, while none has succeeded since. */
  readonly lastFailure?: string
}

/** What this machine offers; read by validation, health and doctor. */
export interface HostCapabilities {
  /** What `auto` means here. */
  readonly default: Isolation
  readonly vm: { readonly available: boolean; readonly detail: string }
  readonly container: { readonly available: boolean; readonly detail: string }
  readonly images: readonly string[]
  readonly defaultImage: string
  readonly maxVcpus: number
  readonly maxMemoryMb: number
  readonly maxDiskGb: number
}

export interface HostApi {
  capabilities(): HostCapabilities
  /**
   * Takes a machine. Rejects with the reason of `abort` when aborted while waiting, with MagsError 'sandbox_failed' and the driver's last words when none can be
   * made within 30 s, 'not_available' for an isolation, image or size this host does not have.
   */
  acquire(spec: SandboxSpec, abort?: AbortSignal): Promise<SandboxLease>
  /**
   * Takes back a persistent sandbox that outlived the daemon. `resume` has the bytes of each stream already safe. Undefined when it is gone.
   * Everything not adopted by the time `settle` is called is freed.
   */
  adopt(sandboxId: string, resume: { stdout: number; stderr: number }, sink: OutputSink): Promise<RunningSandbox | undefined>
  /** Ends recovery: frees what was left behind and starts to fill the pool. */
  settle(): Promise<void>
  poolStatus(): PoolStatus
  /** Frees the pool and the network. With `keepPersistent`, sandboxes of persistent jobs live on for the next daemon. */
  close(options: { keepPersistent: boolean }): Promise<void>
}
