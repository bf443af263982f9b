import { once } from 'node:events'
import { connect, type Socket } from 'node:net'

/** A client that sends exactly the bytes it is told to. */
export class RawClient implements Disposable {
  readonly socket: Socket
  /** The other side ended or reset the connection. */
  readonly closed: Promise<'end' | 'reset'>
  #received = ''
  #heard: (() => void)[] = []

  private constructor(socket: Socket) {
    this.socket = socket
    socket.on('data', (bytes) => {
      this.#received += bytes.toString('latin1')
      this.#wake()
    })
    this.closed = new Promise((resolve) => {
      socket.on('end', () => resolve('end'))
      socket.on('error', () => resolve('reset'))
      socket.on('close', () => resolve('reset'))
    })
    void this.closed.then(() => this.#wake())
  }

  static async open(port: number): Promise<RawClient> {
    const socket = connect({ port, host: '127.0.0.1', allowHalfOpen: true, noDelay: true })
    await once(socket, 'connect')
    return new RawClient(socket)
  }

  get received(): string {
    return this.#received
  }

  send(text: string | Buffer): void {
    this.socket.write(typeof text === 'string' ? Buffer.from(text, 'latin1') : text)
  }

  /** In pieces that arrive one by one. */
  async sendPieces(pieces: readonly Buffer[]): Promise<void> {
    for (const piece of pieces) {
      await new Promise<void>((resolve) => this.socket.write(piece, () => resolve()))
      await new Promise((resolve) => setImmediate(resolve))
    }
  }

  /** All that came, once it has what is looked for or the connection ended. */
  async until(wanted: string | RegExp): Promise<string> {
    let over = false
    void this.closed.then(() => (over = true))
    const has = () => (typeof wanted === 'string' ? this.#received.includes(wanted) : wanted.test(this.#received))
    while (!has() && !over) await new Promise<void>((resolve) => this.#heard.push(resolve))
    return this.#received
  }

  async untilClosed(): Promise<string> {
    await this.closed
    return this.#received
  }

  [Symbol.dispose](): void {
    this.socket.destroy()
  }

  #wake(): void {
    for (const heard of this.#heard.splice(0)) heard()
  }
}
