import { type Duplex, duplexPair } from 'node:stream'
import { connectAgent } from './connect-agent.ts'
import type { AgentConnection } from './connection.ts'
import type { HelloChannel } from './decode-frames.ts'
import { frameType, headerBytes, marker, nonceBytes, protocolVersion, sentPayloadLimit } from './frame-constants.ts'
import { FrameReader } from './frame-reader.ts'
import { PayloadWriter } from './payload-writer.ts'

export interface SeenFrame {
  readonly type: number
  readonly stream: number
  readonly channel: number
  readonly payload: Buffer
}

/** An agent frame built by hand, for tests: `agentFrame(frameType.opened, 0, 7, (w) => w.u32(42))`. */
export function agentFrame(type: number, stream: number, channel: number, write: (writer: PayloadWriter) => unknown = () => undefined): Buffer {
  const writer = new PayloadWriter()
  write(writer)
  return writer.frame(type, stream, channel)
}

export const agentFrames = {
  hello: (nonce: Uint8Array, channels: readonly HelloChannel[] = [], features?: number) =>
    agentFrame(frameType.hello, 0, 0, (writer) => {
      writer.u32(protocolVersion).bytes(nonce).u8(0).u32(channels.length)
      for (const found of channels) {
        writer
          .u32(found.channel)
          .u8(found.kind === 'exec' ? 0 : 1)
          .u8(found.exited ? 1 : 0)
          .u8(0)
          .u32(0)
          .u32(found.pid)
          .u64(found.received)
        for (const stream of [found.stdout, found.stderr])
          writer
            .u64(stream.sent)
            .u64(stream.acked)
            .u8(stream.eof ? 1 : 0)
      }
      if (features !== undefined) writer.u32(features)
    }),
  opened: (channel: number, pid = 42) => agentFrame(frameType.opened, 0, channel, (writer) => writer.u32(pid)),
  data: (channel: number, stream: number, offset: number, bytes: Uint8Array | string) =>
    agentFrame(frameType.data, stream, channel, (writer) => writer.u64(offset).bytes(Buffer.from(bytes as string))),
  eof: (channel: number, stream: number, total: number, dropped = 0) => agentFrame(frameType.eof, stream, channel, (writer) => writer.u64(total).u64(dropped)),
  ack: (channel: number, total: number) => agentFrame(frameType.ack, 0, channel, (writer) => writer.u64(total)),
  exit: (channel: number, code = 0, kind = 0, message = '') =>
    agentFrame(frameType.exit, 0, channel, (writer) => writer.u8(kind).u32(code).u64(1500).u64(2500).u64(1824).string(message)),
  reply: (number: number, errno = 0, write: (writer: PayloadWriter) => unknown = () => undefined) =>
    agentFrame(frameType.reply, 0, number, (writer) => write(writer.u32(errno))),
}

/** The sandbox's end of a connection in the hands of a test: it sends what the test says and shows what came. */
export class ScriptedAgent {
  readonly stream: Duplex
  readonly #reader = new FrameReader(sentPayloadLimit)
  readonly #seen: SeenFrame[] = []
  readonly #waiting: (() => void)[] = []
  #greeting: Buffer | undefined = Buffer.alloc(0)
  /** Of the host's HELLO. */
  readonly nonce: Promise<Buffer>
  readonly #nonce = Promise.withResolvers<Buffer>()

  constructor(stream: Duplex) {
    this.stream = stream
    this.nonce = this.#nonce.promise
    stream.on('error', () => undefined)
    stream.on('data', (chunk: Buffer) => this.#take(chunk))
  }

  send(...frames: Uint8Array[]) {
    this.stream.write(Buffer.concat(frames))
  }

  /** The next frame from the host, in order. */
  async next(): Promise<SeenFrame> {
    for (;;) {
      const frame = this.#seen.shift()
      if (frame !== undefined) return frame
      await new Promise<void>((resolve) => this.#waiting.push(resolve))
    }
  }

  /** The next frame of a type; those before it are dropped. */
  async nextOf(type: number): Promise<SeenFrame> {
    for (;;) {
      const frame = await this.next()
      if (frame.type === type) return frame
    }
  }

  #take(chunk: Buffer) {
    let bytes = chunk
    if (this.#greeting !== undefined) {
      this.#greeting = Buffer.concat([this.#greeting, bytes])
      const helloBytes = marker.length + headerBytes + 4 + nonceBytes
      if (this.#greeting.length < helloBytes) return
      this.#nonce.resolve(this.#greeting.subarray(helloBytes - nonceBytes, helloBytes))
      bytes = this.#greeting.subarray(helloBytes)
      this.#greeting = undefined
    }
    this.#reader.push(bytes)
    while (this.#reader.next()) {
      const { type, stream, channel, payload } = this.#reader
      this.#seen.push({ type, stream, channel, payload })
      this.#waiting.shift()?.()
    }
  }
}

/** A connection whose other end is the test. */
export async function connectScripted(
  channels: readonly HelloChannel[] = [],
  after: Buffer = Buffer.alloc(0),
  features?: number,
): Promise<{ connection: AgentConnection; agent: ScriptedAgent }> {
  const [ours, theirs] = duplexPair()
  const agent = new ScriptedAgent(theirs)
  const connecting = connectAgent(ours, { timeoutMs: 5_000 })
  agent.send(Buffer.from('left over'), marker, agentFrames.hello(await agent.nonce, channels, features), after)
  return { connection: await connecting, agent }
}
