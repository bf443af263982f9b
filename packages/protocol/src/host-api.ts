import type { Duplex } from 'node:stream'
import type { EgressPolicy } from './egress.ts'
import type { HostImages } from './host-images.ts'

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
  /** This version of the image, `sha256:…`, also when there is a newer one; the newest when absent. */
  readonly imageDigest?: string
  readonly isolation: IsolationWish
  readonly vcpus: number
  readonly memoryMb: number
  readonly diskGb: number
  /** Whose it is: when many wait for a sandbox, those with different ones are served in turn. */
  readonly share?: string
  /** How many shares there are, this one included: where there is a bound on machines, the last one is for shares that have none. Default: no other. */
  readonly shares?: number
  /** Outlives the daemon when true (see `adopt`); otherwise freed by the next start. */
  readonly persistent: boolean
  /** Its root is read from and saved as this workspace. */
  readonly workspace?: WorkspaceHold
  /** Its root starts from this workspace, which is not changed; together with `workspace` a fork of it. */
  readonly base?: WorkspaceSource
  /** What it may reach besides the rules of this machine; default all that those allow. */
  readonly egress?: EgressPolicy
  /** Addresses of its own, out of `HostCapabilities.addressPrefixes`: traffic to them reaches it, and it is seen with them outside. */
  readonly addresses?: LeasedAddresses
}

/** At least one of the two. */
export interface LeasedAddresses {
  readonly ipv4?: string
  readonly ipv6?: string
}

/** A workspace that is ours to write. */
export interface WorkspaceHold {
  /** Names it in the object store: 32 lower-case hex digits, never used a second time. */
  readonly storageId: string
  /** Grows with every holder; who has a lower one than another has had is refused by the object store. */
  readonly fence: number
  /** Only what lies below this folder is kept, such as `/workspace`; the rest begins as the image has it. The same for all of a workspace's life. */
  readonly scope?: string
}

/** A workspace to start from. */
export interface WorkspaceSource {
  readonly storageId: string
  /** The newest when absent. */
  readonly version?: number
}

/** One saved state of a workspace. */
export interface WorkspaceVersion {
  /** From 1 up, without gaps. */
  readonly version: number
  /** RFC 3339. */
  readonly createdAt: string
  readonly reason: 'sync' | 'fork' | 'restore'
  /** All files as they are, and how many paths. */
  readonly sizeBytes: number
  readonly entryCount: number
  /** What went to the object store for it. */
  readonly uploadedBytes: number
  readonly image: { readonly name: string; readonly digest: string }
}

export interface WorkspaceSaved {
  readonly version: WorkspaceVersion
  /** False when there was nothing new: `version` is the one of before. */
  readonly changed: boolean
  /** Device nodes, which are not kept. */
  readonly skippedCount: number
}

export type WorkspaceEntryKind = 'directory' | 'file' | 'symlink' | 'fifo' | 'socket' | 'removed'

/** One path that two versions have differently. `removed` as a kind: the version hides a path of the image. */
export interface WorkspaceDifference {
  /** UTF-8; bytes that are none are shown as U+FFFD. */
  readonly path: string
  readonly change: 'added' | 'changed' | 'removed'
  readonly before?: WorkspacePathState
  readonly after?: WorkspacePathState
  /** Lines as `diff -u` shows them, for text files up to 1 MiB and only when asked for. */
  readonly content?: string
}

export interface WorkspacePathState {
  readonly kind: WorkspaceEntryKind
  readonly sizeBytes: number
  readonly mode: number
}

export interface WorkspaceDiff {
  readonly differences: readonly WorkspaceDifference[]
  /** There are more than were asked for. */
  readonly truncated: boolean
}

/** Workspaces of this machine and in the object store. Everything here may reject with MagsError 'object_store_unavailable' (try again later) and 'workspace_damaged'. */
export interface HostWorkspaces {
  /** Newest first. */
  versions(storageId: string): Promise<readonly WorkspaceVersion[]>
  /** `to` begins with what `from` has; nothing is copied. Undefined when `from` was never saved: then `to` is empty, too. */
  fork(from: WorkspaceSource, to: WorkspaceHold): Promise<WorkspaceVersion | undefined>
  /** A new version with the contents of an earlier one; nothing is copied. The workspace must not be in use. */
  restore(hold: WorkspaceHold, version: number): Promise<WorkspaceVersion>
  /** Version 0 is the image alone. */
  diff(storageId: string, options: { readonly from: number; readonly to: number; readonly content: boolean; readonly limit: number }): Promise<WorkspaceDiff>
  /** Saves what a job left on this machine and could not be saved then. Undefined when there is nothing. The workspace must not be in use. */
  saveLeft(hold: WorkspaceHold): Promise<WorkspaceSaved | undefined>
  /** Workspaces of which this machine has changes that are not saved. */
  left(): Promise<readonly string[]>
  /** Everything of it, here and in the object store. The workspace must not be in use. */
  remove(storageId: string): Promise<void>
}

/** Files of a running sandbox. Paths are absolute and looked up inside the sandbox, by its own rules: nothing there leads out. */
export interface SandboxFiles {
  /** Rejects with MagsError('not_found') naming the path. Links are followed. */
  stat(path: string): Promise<SandboxFile>
  /** In the order of their names; at most `limit`. */
  list(path: string, limit: number): Promise<{ readonly entries: readonly SandboxFile[]; readonly truncated: boolean }>
  read(path: string, range?: { readonly offset: number; readonly lengthBytes: number }): AsyncIterable<Uint8Array>
  /** Parents are made. Replaces what is there once all is written; `mode` 0 to 0o7777, default 0o644 or that of the file replaced. */
  write(path: string, content: AsyncIterable<Uint8Array>, options?: { readonly mode?: number }): Promise<void>
  /** A folder only with `recursive`. */
  remove(path: string, options: { readonly recursive: boolean }): Promise<void>
}

export interface SandboxFile {
  readonly name: string
  readonly type: 'directory' | 'file' | 'symlink' | 'fifo' | 'socket' | 'device'
  readonly sizeBytes: number
  readonly mode: number
  /** RFC 3339. */
  readonly modifiedAt: string
}

/** What runs in it first. */
export interface ScriptSpec {
  readonly script: string
  readonly environment: Readonly<Record<string, string>>
  /** Put into the sandbox before the script starts. */
  readonly files?: readonly ScriptFile[]
  /**
   * Boots the image instead: its /sbin/init becomes the first process of a process namespace of its own, in which all programs run from then on; `script` is not run. Only virtual machines can (MagsError 'not_available').
   * Its console is the output, and `exited` settles when it powers off or reboots; the root can be read and saved then.
   */
  readonly init?: true
}

export interface ScriptFile {
  readonly path: string
  readonly content: () => AsyncIterable<Uint8Array>
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
  readonly kind: 'exited' | 'signalled' | 'not-started' | 'sandbox-lost' | 'unknown'
  /** Exit code as a shell would give it (128 + signal); says nothing when the kind is `unknown`. */
  readonly exitCode: number
  /** Words for the job's system log when there is more to say (out of memory, sandbox died, …). */
  readonly reason?: string
  readonly userCpuMs?: number
  readonly systemCpuMs?: number
  readonly maxRssKb?: number
  /** How the image's init ended (`ScriptSpec.init`), when it meant to. */
  readonly halted?: 'powered-off' | 'rebooted'
}

export interface ExecRequest {
  readonly command: readonly string[]
  readonly environment?: Readonly<Record<string, string>>
  readonly cwd?: string
  /** Standard input, whole or as it comes; absent means /dev/null. */
  readonly stdin?: Uint8Array | AsyncIterable<Uint8Array>
  readonly timeoutMs: number
}

/** One more program with its input open; `sftp` is the server's side of SFTP version 3 on standard input and output, which every sandbox has. */
export type ProgramRequest = {
  readonly environment?: Readonly<Record<string, string>>
  readonly cwd?: string
  /** On a terminal of its own; all output is then `stdout`. TERM belongs into `environment`. */
  readonly pty?: TerminalSize
} & ({ readonly kind: 'command'; readonly command: readonly string[] } | { readonly kind: 'sftp' })

export interface TerminalSize {
  readonly rows: number
  readonly cols: number
}

/** A program that somebody talks with. */
export interface RunningProgram {
  /** Settles when its first process ended and its output so far was taken; never rejects. */
  readonly exit: Promise<ScriptExit>
  /** Settles when all its output was taken, also that of processes it left behind; never rejects. */
  readonly outputEnd: Promise<void>
  /** Settles when the bytes were taken: wait for it before the next. Rejects when nobody reads them any more. */
  write(bytes: Uint8Array): Promise<void>
  /** End of its input. */
  end(): void
  signal(signal: number): void
  resize(size: TerminalSize): void
  /** Kills its process group if it still runs, and forgets it; what runs on a terminal is hung up instead, as when a line drops. Idempotent. */
  close(): void
}

/** A connection or datagram that a sandbox was not allowed. */
export interface RefusedConnection {
  readonly protocol: 'tcp' | 'udp' | 'other'
  readonly address: string
  readonly port: number
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
  readonly files: SandboxFiles
  /** Starts one more program and leaves its input open; output is acknowledged as the promise settles. Wakes nothing: the sandbox must not sleep. */
  start(request: ProgramRequest, onOutput: (source: 'stdout' | 'stderr', bytes: Uint8Array) => Promise<void> | void): RunningProgram
  /** A TCP connection to a port inside, also of servers that listen on 127.0.0.1 only. Rejects with MagsError 'not_listening' when nothing does, 'sandbox_failed' when it is lost. */
  connect(port: number): Promise<Duplex>
  /** Stops every process where it is; memory stays. Idempotent. The workspace is the caller's to save before. */
  sleep(): Promise<void>
  /** Lets them go on; from a hibernated one, too, which takes longer. Idempotent. Rejects with MagsError 'sandbox_failed' when it cannot come back. */
  wake(): Promise<void>
  /** A sleeping one: memory goes to disk and is free for others. False when this kind of sandbox cannot. */
  hibernate(): Promise<boolean>
  /** In force once settled; for connections that exist, too. Rejects with MagsError 'bad_request' naming the rule that cannot be kept. */
  setEgress(policy: EgressPolicy): Promise<void>
  /** Bytes it sent so far to anywhere outside; counted over sleep and restarts of the daemon. */
  egressBytes(): Promise<number>
  /** The same in all; settles once it is gone and its last byte counted, never rejects. */
  readonly egressTotal: Promise<number>
  /** Hears of what it was refused, each target at most once a minute; at most 64 a minute. Returns how to stop; it settles when what was refused until then has been told, which takes a moment. */
  watchRefused(listener: (refused: RefusedConnection) => void): () => Promise<void>
  /**
   * Hears why its machine stands still although nobody wished so, such as a disk of this machine that is full, in words with what to do; and undefined once it goes on, which it does by itself. Until then
   * everything that needs it rejects with MagsError 'storage_full'.
   */
  watchStalls(listener: (words: string | undefined) => void): void
  /**
   * Another machine with the state of this one: files always, memory and processes when its kind can (`withMemory`; the script's process and its output then go on in the copy, and the lease's `run` takes it over instead of
   * starting a script). This one goes on as if nothing happened; connections are not copied. Rejects with MagsError 'not_available' with the reason.
   */
  fork(spec: SandboxSpec, abort?: AbortSignal): Promise<{ readonly lease: SandboxLease; readonly withMemory: boolean }>
  /**
   * Saves its workspace as a new version, if anything changed; durable once settled. It must not sleep. With `final` every process in the sandbox is ended before, and nothing can run in it afterwards.
   * Rejects with MagsError 'object_store_unavailable' (the changes stay on this machine, try again), 'workspace_fenced' (somebody else has it now; never try again).
   */
  saveWorkspace(options: { readonly final: boolean }): Promise<WorkspaceSaved>
  /** Whether what is not saved of its workspace stays on this machine when the sandbox ends now. Not so for a virtual machine whose disk could not be brought to rest. */
  keepsUnsaved(): Promise<boolean>
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
  /** Digest of each image, by name. */
  readonly imageDigests: Readonly<Record<string, string>>
  readonly defaultImage: string
  readonly maxVcpus: number
  readonly maxMemoryMb: number
  readonly maxDiskGb: number
  /** Prefixes that sandboxes can have addresses out of, such as `203.0.113.0/28` and `2001:db8::/64`. */
  readonly addressPrefixes: readonly string[]
}

export interface HostApi {
  readonly workspaces: HostWorkspaces
  readonly images: HostImages
  capabilities(): HostCapabilities
  /**
   * Takes a machine. Rejects with the reason of `abort` when aborted while waiting, with MagsError 'sandbox_failed' and the driver's last words when none can be
   * made within 30 s, 'not_available' for an isolation, image or size this host does not have. With a workspace also what reading it may reject with, and
   * 'workspace_fenced'. `onProgress` hears what takes longer than a second, in words.
   */
  acquire(spec: SandboxSpec, abort?: AbortSignal, onProgress?: (words: string) => void): Promise<SandboxLease>
  /**
   * Takes back a persistent sandbox that outlived the daemon. `resume` has the bytes of each stream already safe. Undefined when it is gone.
   * A hibernated one is adopted without being woken, one that only sleeps goes on sleeping when `asleep` says so. Everything not adopted by the time `settle` is called is freed.
   */
  adopt(sandboxId: string, resume: { stdout: number; stderr: number; asleep?: boolean }, sink: OutputSink): Promise<RunningSandbox | undefined>
  /** Ends recovery: frees what was left behind and starts to fill the pool. */
  settle(): Promise<void>
  poolStatus(): PoolStatus
  /** Frees the pool and the network. With `keepPersistent`, sandboxes of persistent jobs live on for the next daemon. */
  close(options: { keepPersistent: boolean }): Promise<void>
}
