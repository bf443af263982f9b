import type { Socket } from 'node:net'
import type { Connection } from 'ssh2'
import { isExchangingKeys } from './ssh2-internals.ts'

/** Sent and not yet taken by the network. A client may open its windows as wide as it likes and then not read. */
const outputMaxBytes = 1024 * 1024
/** Above this not even its questions are read any more, since each of them makes an answer. */
const answersMaxBytes = 4 * 1024 * 1024

/** Whether a connection takes more output at the moment. */
export class Congestion {
  readonly #socket: Socket
  readonly #connection: Connection
  readonly #rekeyTimeoutMs: number
  #waiting: Promise<void> | undefined

  constructor(socket: Socket, connection: Connection, rekeyTimeoutMs: number) {
    this.#socket = socket
    this.#connection = connection
    this.#rekeyTimeoutMs = rekeyTimeoutMs
    socket.on('data', () => {
      if (socket.writableLength <= answersMaxBytes) return
      socket.pause()
      socket.once('drain', () => socket.resume())
    })
  }

  /** Settles when there is room; undefined when there is. Also when the connection is gone. */
  wait(): Promise<void> | undefined {
    if (this.#socket.destroyed) return undefined
    if (this.#waiting !== undefined) return this.#waiting
    const rekeying = isExchangingKeys(this.#connection)
    if (!rekeying && this.#socket.writableLength <= outputMaxBytes) return undefined
    this.#waiting = (rekeying ? this.#rekeyed() : this.#drained()).then(() => {
      this.#waiting = undefined
      return this.wait()
    })
    return this.#waiting
  }

  #drained(): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>()
    const done = () => {
      this.#socket.off('drain', done)
      this.#socket.off('close', done)
      resolve()
    }
    this.#socket.once('drain', done)
    this.#socket.once('close', done)
    return promise
  }

  #rekeyed(): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>()
    const timer = setTimeout(() => this.#socket.destroy(), this.#rekeyTimeoutMs)
    const done = () => {
      clearTimeout(timer)
      this.#connection.off('rekey', done)
      this.#socket.off('close', done)
      resolve()
    }
    this.#connection.once('rekey', done)
    this.#socket.once('close', done)
    return promise
  }
}
