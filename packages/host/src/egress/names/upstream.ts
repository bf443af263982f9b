import { randomInt } from 'node:crypto'
import { createSocket, type Socket } from 'node:dgram'
import { connect } from 'node:net'
import { encodeQuery } from './answer.ts'
import type { Question } from './question.ts'

const patienceMs = 5_000

interface Waiting {
  readonly section: string
  readonly resolve: (packet: Buffer) => void
}

/** Asks the resolver of the sandboxes. */
export class Upstream {
  readonly #address: string
  readonly #port: number
  readonly #socket: Socket
  readonly #waiting = new Map<number, Waiting>()

  private constructor(address: string, port: number, socket: Socket) {
    this.#address = address
    this.#port = port
    this.#socket = socket
    socket.on('message', (packet) => this.#receive(packet))
    // Unreachable while the resolver is started again; who waits runs into its time.
    socket.on('error', () => undefined)
  }

  static async open(address: string, port: number): Promise<Upstream> {
    const socket = createSocket('udp4')
    await new Promise<void>((resolve, reject) => {
      socket.once('error', reject)
      socket.connect(port, address, () => {
        socket.off('error', reject)
        resolve()
      })
    })
    return new Upstream(address, port, socket)
  }

  /** The whole answer, by TCP when it does not fit. Rejects when none comes within 5 s. */
  async ask(question: Question): Promise<Buffer> {
    const answer = await this.#askByUdp(question)
    const isTruncated = ((answer[2] ?? 0) & 2) !== 0
    return isTruncated ? await this.#askByTcp(question) : answer
  }

  close() {
    this.#socket.close()
  }

  async #askByUdp(question: Question): Promise<Buffer> {
    const { promise, resolve, reject } = Promise.withResolvers<Buffer>()
    const id = this.#freeId()
    const query = encodeQuery(id, question)
    this.#waiting.set(id, { section: sectionOf(query, question.section.length), resolve })
    const timer = setTimeout(() => reject(new Error('the resolver does not answer')), patienceMs)
    this.#socket.send(query, (error) => {
      if (error) reject(error)
    })
    try {
      return await promise
    } finally {
      clearTimeout(timer)
      this.#waiting.delete(id)
    }
  }

  #receive(packet: Buffer) {
    if (packet.length < 12 || ((packet[2] ?? 0) & 0x80) === 0) return
    const waiting = this.#waiting.get(packet.readUInt16BE(0))
    if (waiting !== undefined && sectionOf(packet, waiting.section.length) === waiting.section) waiting.resolve(packet)
  }

  #askByTcp(question: Question): Promise<Buffer> {
    const { promise, resolve, reject } = Promise.withResolvers<Buffer>()
    const id = randomInt(65_536)
    const query = encodeQuery(id, question)
    const socket = connect(this.#port, this.#address)
    const chunks: Buffer[] = []
    socket.setTimeout(patienceMs, () => socket.destroy(new Error('the resolver does not answer')))
    socket.on('error', reject)
    socket.on('close', () => reject(new Error('the resolver hung up')))
    socket.on('data', (chunk) => {
      chunks.push(chunk)
      const all = Buffer.concat(chunks)
      if (all.length < 2 || all.length < 2 + all.readUInt16BE(0)) return
      const packet = all.subarray(2, 2 + all.readUInt16BE(0))
      if (packet.length >= 12 && packet.readUInt16BE(0) === id) resolve(packet)
      socket.destroy()
    })
    socket.end(Buffer.concat([Buffer.from([query.length >> 8, query.length & 255]), query]))
    return promise
  }

  #freeId(): number {
    let id = randomInt(65_536)
    while (this.#waiting.has(id)) id = (id + 1) % 65_536
    return id
  }
}

const sectionOf = (packet: Buffer, lengthBytes: number) =>
  packet
    .subarray(12, 12 + lengthBytes)
    .toString('latin1')
    .toLowerCase()
