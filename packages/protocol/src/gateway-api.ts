import type { Duplex } from 'node:stream'
import type { ProgramRequest, RunningProgram } from './host-api.ts'

/**
 * The seam between the gateway (carries bytes) and the server (knows whose they are). Only plain data, callbacks and streams cross it.
 */
export interface GatewayDirectory {
  /**
   * What a host name means: `<subdomain>.<apps domain>`, `<first 12 characters of a request id>.<apps domain>`, `<alias>.<apps domain>`, or a domain of an alias. `host` is lower case without a port and a final dot;
   * undefined when it means nothing here.
   */
  findByHost(host: string): Promise<GatewayTarget | undefined>
  /** The job a port of the SSH gateway belongs to. */
  findBySshPort(port: number): Promise<GatewayTarget | undefined>
  /** What an SSH user name means on the shared port: a job's name, workspace, alias, subdomain or request id, for whoever has this public key (`ssh-ed25519 AAAA…` without a comment). */
  findBySshUser(user: string, publicKey: string): Promise<GatewayTarget | undefined>
  /** Whether this public key opens this target. */
  acceptsKey(requestId: string, publicKey: string): Promise<boolean>
  /** Ports that jobs have at the moment, to listen on; `onChange` hears of one that came or went. */
  sshPorts(): Promise<readonly number[]>
  onSshPort(listener: (port: number, open: boolean) => void): () => void
  /** Whether this bearer token may see a private URL of this job. */
  acceptsToken(requestId: string, token: string): Promise<boolean>
  /**
   * Opens a job for traffic: wakes it when it sleeps (one wake for all who wait) and keeps it awake until the lease is closed. Rejects with MagsError 'job_not_running' (over, not persistent), 'wake_failed',
   * or the reason of `abort`.
   */
  open(requestId: string, reason: 'http' | 'ssh', abort?: AbortSignal): Promise<GatewayLease>
}

export interface GatewayTarget {
  readonly requestId: string
  readonly name: string
  /** What its URL reaches. */
  readonly port: number
  /** `token`: only who has a token of its account. */
  readonly visibility: 'public' | 'token'
  /** `starting`: its script has not been started; `open` waits for it. */
  readonly state: 'starting' | 'running' | 'sleeping' | 'over'
  /** Milliseconds since 1970 when its script started: a server in it may not listen yet. */
  readonly startedAt: number | null
}

/** A job that is awake as long as this is not closed. */
export interface GatewayLease extends Disposable {
  /** Settles when the sandbox is gone. */
  readonly gone: Promise<void>
  /** When its processes were started, or let go on, by this lease or shortly before: ms since 1970. */
  readonly wokenAt: number | null
  /** As {@link RunningSandbox.connect}. */
  connect(port: number): Promise<Duplex>
  /** As {@link RunningSandbox.start}, with the job's own environment. */
  start(request: ProgramRequest, onOutput: (source: 'stdout' | 'stderr', bytes: Uint8Array) => Promise<void> | void): RunningProgram
}
