import { connect, type Socket } from 'node:net'

/** An event as QEMU sends it, https://qemu-project.gitlab.io/qemu/interop/qemu-qmp-ref.html */
export interface QmpEvent {
  readonly event: string
  readonly data: Readonly<Record<string, unknown>>
}

/** QEMU refused a command, or the connection is gone; the message names the command. */
export class QmpError extends Error {
  constructor(message: string) {
    super(message)
    this.name = 'QmpError'
  }
}

export interface QmpOptions {
  /** For the greeting and for each answer; default 20,000. */
  readonly timeoutMs?: number
  readonly onEvent?: (event: QmpEvent) => void
}

/** Far over any answer we ask for; a QEMU that sends more is not sane. */
const lineLimitBytes = 1 << 20

interface Waiter {
  readonly command: string
  resolve(value: unknown): void
  reject(error: QmpError): void
  readonly timer: NodeJS.Timeout
}

/**
 * Client of the QEMU machine protocol: JSON lines over a unix socket. Commands are pipelined, answered in order of their ids.
 *
 *     connecting ──greeting, qmp_capabilities──▶ open ──end of stream, bad line, close──▶ closed
 */
export class QmpConnection {
  /** Settles when the stream ended: undefined after our own `close`, otherwise why. */
  readonly closed: Promise<Error | undefined>
  readonly #socket: Socket
  readonly #timeoutMs: number
  readonly #onEvent: ((event: QmpEvent) => void) | undefined
  readonly #waiters = new Map<number, Waiter>()
  readonly #greeting = Promise.withResolvers<void>()
  readonly #closed = Promise.withResolvers<Error | undefined>()
  #nextId = 1
  #over = false
  #pieces: Buffer[] = []
  #pendingBytes = 0

  constructor(socket: Socket, options: QmpOptions = {}) {
    this.#socket = socket
    this.#timeoutMs = options.timeoutMs ?? 20_000
    this.#onEvent = options.onEvent
    this.closed = this.#closed.promise
    this.#greeting.promise.catch(() => undefined)
    socket.on('data', (bytes: Buffer) => this.#receive(bytes))
    socket.on('error', (error) => this.#end(error))
    socket.on('close', () => this.#end(new QmpError('QEMU closed its control connection')))
  }

  /** Waits for the greeting and leaves the negotiation mode. */
  async open(): Promise<void> {
    const timer = setTimeout(() => this.#end(new QmpError(`QEMU sent no greeting within ${this.#timeoutMs} ms`)), this.#timeoutMs)
    try {
      await this.#greeting.promise
    } finally {
      clearTimeout(timer)
    }
    await this.execute('qmp_capabilities')
  }

  /** Writes the command at once and resolves with its `return`. Rejects with {@link QmpError}. */
  execute(command: string, args?: Readonly<Record<string, unknown>>, timeoutMs = this.#timeoutMs): Promise<unknown> {
    if (this.#over) return Promise.reject(new QmpError(`${command}: the connection to QEMU is closed`))
    const id = this.#nextId++
    const { promise, resolve, reject } = Promise.withResolvers<unknown>()
    const timer = setTimeout(() => {
      this.#waiters.delete(id)
      reject(new QmpError(`${command}: no answer from QEMU within ${timeoutMs} ms`))
    }, timeoutMs)
    this.#waiters.set(id, { command, resolve, reject, timer })
    this.#socket.write(`${JSON.stringify(args === undefined ? { execute: command, id } : { execute: command, id, arguments: args })}\n`)
    return promise
  }

  close() {
    this.#end(undefined)
  }

  #receive(bytes: Buffer) {
    let rest = bytes
    for (;;) {
      const end = rest.indexOf(10)
      if (end === -1) break
      this.#pieces.push(rest.subarray(0, end))
      const line = Buffer.concat(this.#pieces).toString('utf8')
      this.#pieces = []
      this.#pendingBytes = 0
      rest = rest.subarray(end + 1)
      this.#take(line)
      if (this.#over) return
    }
    if (rest.length === 0) return
    this.#pieces.push(rest)
    this.#pendingBytes += rest.length
    if (this.#pendingBytes > lineLimitBytes) this.#end(new QmpError(`QEMU sent a line of over ${lineLimitBytes} bytes`))
  }

  #take(line: string) {
    if (line.trim() === '') return
    let message: Record<string, unknown>
    try {
      const parsed: unknown = JSON.parse(line)
      if (!isRecord(parsed)) throw new Error('not an object')
      message = parsed
    } catch {
      this.#end(new QmpError(`QEMU sent something that is no QMP message: ${line.slice(0, 80)}`))
      return
    }
    if ('QMP' in message) this.#greeting.resolve()
    else if (typeof message.event === 'string') this.#onEvent?.({ event: message.event, data: isRecord(message.data) ? message.data : {} })
    else this.#answer(message)
  }

  #answer(message: Record<string, unknown>) {
    const waiter = typeof message.id === 'number' ? this.#waiters.get(message.id) : undefined
    if (waiter === undefined) return
    this.#waiters.delete(message.id as number)
    clearTimeout(waiter.timer)
    if (isRecord(message.error)) waiter.reject(new QmpError(`${waiter.command}: ${String(message.error.desc ?? message.error.class)}`))
    else waiter.resolve(message.return)
  }

  #end(error: Error | undefined) {
    if (this.#over) return
    this.#over = true
    this.#socket.destroy()
    const words = error?.message ?? 'the connection to QEMU was closed'
    for (const waiter of this.#waiters.values()) {
      clearTimeout(waiter.timer)
      waiter.reject(new QmpError(`${waiter.command}: ${words}`))
    }
    this.#waiters.clear()
    this.#greeting.reject(error ?? new QmpError(words))
    this.#closed.resolve(error)
  }
}

/** Connects to QEMU's socket, which must exist, and negotiates. */
export async function connectQmp(path: string, options: QmpOptions = {}): Promise<QmpConnection> {
  const qmp = new QmpConnection(connect(path), options)
  try {
    await qmp.open()
    return qmp
  } catch (error) {
    qmp.close()
    throw error
  }
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}
