import { connect } from 'node:net'
import { type GatewayDirectory, type GatewayLease, type GatewayTarget, MagsError, type ProgramRequest } from '@mags/protocol'
import { startLocalProgram } from './start-local-program.ts'

export interface FakeJob {
  readonly name: string
  readonly folder: string
  readonly port?: number
  /** `ssh-ed25519 AAAA…` without a comment. */
  readonly keys: readonly string[]
}

/** A directory of jobs whose sandboxes are folders of this machine. */
export class FakeDirectory implements GatewayDirectory {
  readonly jobs = new Map<string, FakeJob>()
  /** `open <request id>`, `close <request id>` and `key` (asked whether a key opens one), in the order they came. */
  readonly events: string[] = []
  readonly programs: ProgramRequest[] = []
  /** Awaited by `open`; rejects to let it fail. */
  wake: () => Promise<void> = async () => undefined
  openLeases = 0
  /** Output of programs that the gateway has taken. */
  takenBytes = 0
  #listeners = new Set<(port: number, open: boolean) => void>()
  #gone = new Map<string, PromiseWithResolvers<void>>()
  #quiet = Promise.withResolvers<void>()

  add(requestId: string, job: FakeJob): void {
    this.jobs.set(requestId, job)
    this.#gone.set(requestId, Promise.withResolvers())
    if (job.port !== undefined) for (const listener of this.#listeners) listener(job.port, true)
  }

  remove(requestId: string): void {
    const job = this.jobs.get(requestId)
    this.jobs.delete(requestId)
    this.#gone.get(requestId)?.resolve()
    if (job?.port !== undefined) for (const listener of this.#listeners) listener(job.port, false)
  }

  /** Its sandbox dies; the job stays known. */
  lose(requestId: string): void {
    this.#gone.get(requestId)?.resolve()
    this.#gone.set(requestId, Promise.withResolvers())
  }

  /** Settles once no lease is open. */
  async quiet(): Promise<void> {
    while (this.openLeases > 0) await this.#quiet.promise
  }

  async findByHost(): Promise<undefined> {
    return undefined
  }

  async findBySshPort(port: number): Promise<GatewayTarget | undefined> {
    for (const [requestId, job] of this.jobs) if (job.port === port) return target(requestId, job)
    return undefined
  }

  async findBySshUser(user: string, publicKey: string): Promise<GatewayTarget | undefined> {
    this.events.push('key')
    for (const [requestId, job] of this.jobs) if (job.name === user && job.keys.includes(publicKey)) return target(requestId, job)
    return undefined
  }

  async acceptsKey(requestId: string, publicKey: string): Promise<boolean> {
    this.events.push('key')
    return this.jobs.get(requestId)?.keys.includes(publicKey) === true
  }

  async sshPorts(): Promise<readonly number[]> {
    return [...this.jobs.values()].flatMap((job) => job.port ?? [])
  }

  onSshPort(listener: (port: number, open: boolean) => void): () => void {
    this.#listeners.add(listener)
    return () => this.#listeners.delete(listener)
  }

  async acceptsToken(): Promise<boolean> {
    return false
  }

  async open(requestId: string, _reason: 'http' | 'ssh', abort?: AbortSignal): Promise<GatewayLease> {
    this.events.push(`open ${requestId}`)
    await this.wake()
    abort?.throwIfAborted()
    const job = this.jobs.get(requestId)
    if (job === undefined) throw new MagsError('job_not_running', `job ${requestId} is over`)
    this.openLeases++
    return {
      gone: this.#gone.get(requestId)?.promise ?? Promise.resolve(),
      wokenAt: null,
      connect: (port) => connectLocally(port),
      start: (request, onOutput) => {
        this.programs.push(request)
        return startLocalProgram(job.folder, request, async (source, bytes) => {
          await onOutput(source, bytes)
          this.takenBytes += bytes.byteLength
        })
      },
      [Symbol.dispose]: () => {
        this.events.push(`close ${requestId}`)
        if (--this.openLeases > 0) return
        this.#quiet.resolve()
        this.#quiet = Promise.withResolvers()
      },
    }
  }
}

function target(requestId: string, job: FakeJob): GatewayTarget {
  return { requestId, name: job.name, port: 8080, visibility: 'public', state: 'running', startedAt: null }
}

function connectLocally(port: number) {
  return new Promise<ReturnType<typeof connect>>((resolve, reject) => {
    const socket = connect({ port, host: '127.0.0.1', allowHalfOpen: true })
    socket.once('connect', () => resolve(socket))
    socket.once('error', () => reject(new MagsError('not_listening', `nothing listens on port ${port} in the sandbox`)))
  })
}
