import type { ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { Socket } from 'node:net'
import { startResident } from '../run.ts'
import { type DialRequest, encodeDialRequest } from './encode-dial-request.ts'

/** Why there is no connection, as the number of the kernel's error: ECONNREFUSED, ETIMEDOUT, ESRCH (the process is no more), … */
export class DialError extends Error {
  readonly errno: number
  constructor(errno: number) {
    super(`dial: errno ${errno}`)
    this.name = 'DialError'
    this.errno = errno
  }
}

/** Whom sandboxes ask for connections. */
export type Dialer = Pick<DialerClient, 'dial' | 'ended'>

/** The dialer keeps to its request's time; an answer that is later is lost: Node.js drops a descriptor that it has no room for. */
const graceMs = 3_000
/** Below what native/mounter/dialer.c has places for, so that a request never waits in the pipe. */
const dialsMax = 4000

interface Waiting {
  readonly timer: NodeJS.Timeout
  resolve(socket: Socket): void
  reject(error: Error): void
}

/**
 * The resident helper that makes TCP connections inside the network namespaces of sandboxes (`mounter dial`) and hands them over: bytes then go between this process and the server in the sandbox, and through
 * nothing else of ours.
 *
 *     running ──close, death──▶ ended: every call rejects, connections made before live on
 */
export class DialerClient {
  readonly #child: ChildProcess
  readonly #waiting = new Map<number, Waiting>()
  #lastId = 0
  #ended: Error | undefined

  private constructor(child: ChildProcess) {
    this.#child = child
    child.on('message', (message, handle) => this.#settle(message, handle instanceof Socket ? handle : undefined))
    child.stdin?.on('error', () => undefined)
    child.once('error', (error) => this.#fail(error))
    child.once('exit', (code, signal) => this.#fail(new Error(`the dialer ended (${signal ?? `exit ${code}`})`)))
  }

  static async start({ binary, logFile }: { readonly binary: string; readonly logFile: string }): Promise<DialerClient> {
    const child = startResident(binary, ['dial'], { logFile, stdin: 'pipe', ipc: true })
    await once(child, 'spawn')
    return new DialerClient(child)
  }

  get pid() {
    return this.#child.pid ?? 0
  }

  get ended() {
    return this.#ended !== undefined
  }

  /**
   * A connected socket without Nagle's delay, and half open when its other end says so. Rejects with {@link DialError} as the first address answers, with another error when the dialer cannot be asked.
   */
  dial(request: DialRequest): Promise<Socket> {
    if (this.#ended !== undefined) return Promise.reject(this.#ended)
    if (this.#waiting.size >= dialsMax) return Promise.reject(new Error(`${dialsMax} connections into sandboxes are being made already`))
    this.#lastId = (this.#lastId + 1) >>> 0
    const id = this.#lastId
    const { promise, resolve, reject } = Promise.withResolvers<Socket>()
    const bytes = encodeDialRequest(id, request)
    const timer = setTimeout(() => {
      this.#waiting.delete(id)
      reject(new Error('a connection was lost on its way here: this process may have no descriptors left'))
    }, request.timeoutMs + graceMs)
    this.#waiting.set(id, { resolve, reject, timer })
    this.#child.stdin?.write(bytes)
    return promise
  }

  async close() {
    if (this.#child.exitCode !== null || this.#child.signalCode !== null) return
    const exit = once(this.#child, 'exit')
    this.#child.stdin?.end()
    await exit
  }

  #settle(message: unknown, socket: Socket | undefined) {
    const { id, errno } = message as { id: number; errno: number }
    // The server in there may break the connection before anybody else can listen; that must not end this process.
    socket?.on('error', () => undefined)
    const waiting = this.#waiting.get(id)
    this.#waiting.delete(id)
    clearTimeout(waiting?.timer)
    if (waiting === undefined) socket?.destroy()
    else if (socket === undefined) waiting.reject(new DialError(errno))
    else {
      // Node makes it so that it ends itself when the other side does.
      socket.allowHalfOpen = true
      waiting.resolve(socket)
    }
  }

  #fail(error: Error) {
    this.#ended ??= error
    for (const { reject, timer } of this.#waiting.values()) {
      clearTimeout(timer)
      reject(error)
    }
    this.#waiting.clear()
  }
}
