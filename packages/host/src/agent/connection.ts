import type { Duplex } from 'node:stream'

/** A program to start through the agent; the frame is in docs/agent-protocol.md. */
export interface AgentExecRequest {
  readonly argv: readonly string[]
  readonly env: Readonly<Record<string, string>>
  readonly cwd?: string
  /** Written to /run/mags/script-<channel> and appended to argv. */
  readonly script?: string | Uint8Array
  readonly pty?: { readonly rows: number; readonly cols: number }
  /** It becomes the first process of a process namespace, with mounts of its own, in which everything started later is born while it lives; its terminal is the console. Only when the agent `boots`. */
  readonly init?: true
  /** Keep standard input open for `writeStdin`; otherwise it is /dev/null. */
  readonly stdin?: boolean
  /** Most bytes of each output stream not yet acknowledged; default 256 KiB. */
  readonly windowBytes?: number
  /** Resource as in setrlimit(2); Infinity is no limit. */
  readonly limits?: readonly { readonly resource: number; readonly soft: number; readonly hard: number }[]
}

export type AgentStream = 'stdout' | 'stderr'

/** Called for each piece of output in order; it is acknowledged when the promise settles. 'discard' makes the agent drop the rest of that stream. */
export type AgentOutput = (stream: AgentStream, offset: number, bytes: Buffer) => Promise<undefined | 'discard'> | undefined

export interface AgentExit {
  /** The last two: of an `init`, which called reboot(2). */
  readonly kind: 'exited' | 'signalled' | 'not-started' | 'rebooted' | 'powered-off'
  /** Exit code, signal number or errno, after `kind`; of an `init` that meant to end, the signal that the kernel ended it by. */
  readonly code: number
  readonly userCpuMs: number
  readonly systemCpuMs: number
  readonly maxRssKb: number
  /** Words when it did not start. */
  readonly message: string
}

/** A running program. Its channel lives until `close`. */
export interface AgentExec {
  readonly channel: number
  /** Process id inside the sandbox, once it started. */
  readonly pid: Promise<number>
  /** The first process ended and all output it had written before is acknowledged. Rejects when the connection is lost for good. */
  readonly exit: Promise<AgentExit>
  /** Both output streams are closed, with the bytes dropped on request. Rejects as `exit` does. */
  readonly eof: Promise<{ readonly droppedBytes: number }>
  writeStdin(bytes: Uint8Array): Promise<void>
  endStdin(): void
  signal(signal: number): void
  resize(rows: number, cols: number): void
  /** Kills the process group if it still runs and forgets the channel. */
  close(): void
}

export interface AgentNetwork {
  /** `aa:bb:cc:dd:ee:ff`. */
  readonly mac: string
  /** Dotted IPv4. */
  readonly address: string
  readonly prefixLength: number
  readonly gateway: string
  readonly mtu: number
}

/** An IPv6 address of the machine's own. */
export interface AgentNetwork6 {
  /** As all addresses here in any notation of RFC 4291, without a zone. */
  readonly address: string
  /** Where all of its IPv6 goes: an address on its link, and the hardware address behind that, for which nobody is asked. */
  readonly gateway: string
  readonly gatewayMac: string
}

export interface AgentIdentity {
  readonly unixTimeNs?: bigint
  readonly entropy?: Uint8Array
  readonly hostname?: string
  readonly hosts?: string
  readonly resolvConf?: string
  readonly machineId?: string
  /** An IPv6 address that it had goes. */
  readonly network?: AgentNetwork
  /** Instead of one that it had, before its programs hear of the answer. Only when the agent `takesIpv6`. */
  readonly network6?: AgentNetwork6
}

export interface AgentStats {
  readonly memoryTotalBytes: number
  readonly memoryAvailableBytes: number
  readonly diskTotalBytes: number
  readonly diskAvailableBytes: number
  readonly processes: number
}

export interface AgentFileEntry {
  readonly name: string
  readonly type: 'file' | 'directory' | 'symlink' | 'fifo' | 'socket' | 'char-device' | 'block-device'
  readonly mode: number
  readonly size: number
  readonly mtimeNs: bigint
}

/**
 * One operation on the sandbox's files, run by a process of its own inside: what blocks it blocks nothing else. Its output comes as that of a program, on
 * stdout, and its exit code is an errno.
 *
 * - `stat` an entry, links followed; `list` a byte (1: there is more) and entries in the order of their names' bytes, links not followed; `read` bytes of a regular file
 * - `write` reads pieces from stdin, each behind its length as u32 (at most 64 KiB), and a length of 0 once all is there; only then the file takes the place of what has the name
 * - `remove` a folder only with `recursive`
 * - `sftp` speaks SFTP version 3 on stdin and stdout until its input ends; relative paths start at `path`
 */
export type AgentFileRequest = { readonly path: string; readonly windowBytes?: number } & (
  | { readonly op: 'stat' }
  | { readonly op: 'list'; readonly most: number }
  | { readonly op: 'read'; readonly offset: number; readonly most: number }
  | { readonly op: 'write'; readonly mode?: number }
  | { readonly op: 'remove'; readonly recursive: boolean }
  | { readonly op: 'sftp' }
)

/** A channel found running after a reconnect, as the agent's HELLO listed it. */
export interface AgentLiveChannel {
  readonly channel: number
  readonly kind: 'exec' | 'dial'
  readonly exited: boolean
  readonly pid: number
}

/**
 * The host's end of the agent protocol over one byte stream. Everything received is hostile input: a frame over its bound, for an unknown channel, past a window or
 * out of sequence ends the connection with {@link AgentProtocolError}, and `closed` settles with it.
 */
export interface AgentConnection {
  /** Starts a program at once; requests are pipelined, nothing waits for an answer. */
  exec(request: AgentExecRequest, output: AgentOutput): AgentExec
  /** Takes over a channel that outlived the last connection; output continues at the given offsets. */
  resumeExec(channel: number, safe: { stdout: number; stderr: number }, output: AgentOutput): AgentExec
  readonly liveChannels: readonly AgentLiveChannel[]
  /** Whether it takes `init`; those in containers and of earlier releases do not. */
  readonly boots?: boolean
  /** Whether `identity` may have `network6`; as above. */
  readonly takesIpv6?: boolean
  /** TCP to a port inside the sandbox. Rejects with the errno's words when nothing listens. */
  dial(port: number): Promise<Duplex>
  /** A new layer worker on what the sandbox has changed (vm); see docs/layer-protocol.md. */
  dialLayerWorker(): Promise<Duplex>
  ping(timeoutMs?: number): Promise<void>
  identity(identity: AgentIdentity): Promise<void>
  /** With `scope`, the name of a folder at the top, that is all of the disk's layer that stays; it is made when neither the layer nor the image has it. */
  attachDisk(serial: string, fileSystemUuid: string, scope?: string): Promise<void>
  detachDisk(): Promise<void>
  freezeDisk(): Promise<void>
  thawDisk(): Promise<void>
  stats(): Promise<AgentStats>
  /** @throws MagsError 'bad_request' for a path with a NUL. */
  file(request: AgentFileRequest, output: AgentOutput): AgentExec
  /** Settles when the stream ended or was refused: undefined for our own `close`, otherwise why. */
  readonly closed: Promise<Error | undefined>
  /** Drops the connection; programs in the sandbox live on. */
  close(): void
}
