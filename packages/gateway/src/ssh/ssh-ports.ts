import { createServer, type Server, type Socket } from 'node:net'
import type { Logger } from 'pino'

const retryMs = 3000

interface Listening {
  readonly server: Server
  readonly closing: AbortController
  retry: NodeJS.Timeout | undefined
  failure: string | undefined
  opened: Promise<void>
}

/** The ports of jobs. Each is `wanted` until it is unset; a wanted one is listened on, or (taken by another program) tried again every few seconds. */
export class SshPorts {
  readonly #host: string
  readonly #logger: Logger
  readonly #onSocket: (socket: Socket, port: number, closing: AbortSignal) => void
  readonly #ports = new Map<number, Listening>()
  #closed = false

  /** `closing` of a socket's port: it is no job's any more. */
  constructor(host: string, logger: Logger, onSocket: (socket: Socket, port: number, closing: AbortSignal) => void) {
    this.#host = host
    this.#logger = logger
    this.#onSocket = onSocket
  }

  set(port: number, wanted: boolean): void {
    const known = this.#ports.get(port)
    if (wanted && known === undefined && !this.#closed) this.#open(port)
    if (!wanted && known !== undefined) this.#close(port, known)
  }

  /** Once the last try to listen on it has ended. */
  async failure(port: number): Promise<string | undefined> {
    const listening = this.#ports.get(port)
    await listening?.opened
    return listening?.failure
  }

  /** Whether a port could be a job's: no other program listens on it. */
  async isFree(port: number): Promise<boolean> {
    if (this.#ports.has(port)) return (await this.failure(port)) === undefined
    const probe = createServer()
    const free = await new Promise<boolean>((resolve) => {
      probe.once('error', () => resolve(false)).once('listening', () => resolve(true))
      probe.listen({ port, host: this.#host })
    })
    if (free) await new Promise((resolve) => probe.close(resolve))
    return free
  }

  /** Settles when every wanted port is listened on or has failed once. */
  async settled(): Promise<void> {
    await Promise.all([...this.#ports.values()].map((listening) => listening.opened))
  }

  close(): void {
    this.#closed = true
    for (const [port, listening] of this.#ports) this.#close(port, listening)
  }

  #open(port: number): void {
    const closing = new AbortController()
    const server = createServer((socket) => this.#onSocket(socket, port, closing.signal))
    const listening: Listening = { server, closing, retry: undefined, failure: undefined, opened: Promise.resolve() }
    this.#ports.set(port, listening)
    const listen = () => {
      listening.opened = new Promise((resolve) => {
        server
          .once('listening', resolve)
          .once('error', () => resolve())
          .once('close', resolve)
      })
      server.listen({ port, host: this.#host, backlog: 511 })
    }
    server.on('listening', () => {
      if (listening.failure !== undefined) this.#logger.info({ port }, 'ssh: the port is free again and listened on')
      listening.failure = undefined
    })
    server.on('error', (error) => {
      if (listening.failure === undefined)
        this.#logger.error({ port, err: error }, `ssh: port ${port} of a job cannot be listened on; its SSH does not work until the port is free`)
      listening.failure = error.message
      if (closing.signal.aborted) return
      listening.retry = setTimeout(listen, retryMs).unref()
    })
    listen()
  }

  #close(port: number, listening: Listening): void {
    this.#ports.delete(port)
    clearTimeout(listening.retry)
    listening.closing.abort()
    listening.server.close()
  }
}
