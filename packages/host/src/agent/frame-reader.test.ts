import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { AgentProtocolError } from './agent-protocol-error.ts'
import { decodeAck, decodeEntry, decodeEof, decodeExit, decodeHello, decodeOpened, decodeReply, decodeStats } from './decode-frames.ts'
import { receivedPayloadLimit } from './frame-constants.ts'
import { FrameReader } from './frame-reader.ts'
import { PayloadReader } from './payload-reader.ts'
import { PayloadWriter } from './payload-writer.ts'

const frame = fc.record({
  type: fc.integer({ min: 0, max: 255 }),
  stream: fc.integer({ min: 0, max: 255 }),
  channel: fc.integer({ min: 0, max: 0xffff_ffff }),
  payload: fc.uint8Array({ maxLength: 300 }),
})

function encode(frames: { type: number; stream: number; channel: number; payload: Uint8Array }[]) {
  return Buffer.concat(frames.map(({ type, stream, channel, payload }) => new PayloadWriter(0).bytes(payload).frame(type, stream, channel)))
}

function readAll(reader: FrameReader) {
  const frames = []
  while (reader.next()) frames.push({ type: reader.type, stream: reader.stream, channel: reader.channel, payload: new Uint8Array(reader.payload) })
  return frames
}

function split(bytes: Buffer, cuts: number[]) {
  const places = [0, ...cuts.map((cut) => cut % (bytes.length + 1)).sort((a, b) => a - b), bytes.length]
  return places.slice(1).map((end, index) => bytes.subarray(places[index], end))
}

describe('FrameReader', () => {
  it('reads the same frames however the bytes are split', () => {
    fc.assert(
      fc.property(fc.array(frame, { maxLength: 20 }), fc.array(fc.nat(), { maxLength: 30 }), fc.boolean(), (frames, cuts, atOnce) => {
        const reader = new FrameReader()
        const read = []
        for (const chunk of split(encode(frames), cuts)) {
          reader.push(chunk)
          if (!atOnce) read.push(...readAll(reader))
        }
        read.push(...readAll(reader))
        expect(read).toEqual(frames.map((one) => ({ ...one, payload: new Uint8Array(one.payload) })))
      }),
    )
  })

  it('reads frames byte by byte', () => {
    const frames = [
      { type: 4, stream: 1, channel: 7, payload: new Uint8Array([1, 2, 3]) },
      { type: 9, stream: 2, channel: 8, payload: new Uint8Array() },
    ]
    const reader = new FrameReader()
    const read = []
    for (const byte of encode(frames)) {
      reader.push(Buffer.from([byte]))
      read.push(...readAll(reader))
    }
    expect(read).toEqual(frames)
  })

  it('refuses a payload over the limit before any of it came', () => {
    const header = Buffer.alloc(12)
    header.writeUInt32LE(receivedPayloadLimit + 1)
    const reader = new FrameReader()
    reader.push(header)
    expect(() => reader.next()).toThrow(AgentProtocolError)
  })

  it('takes a payload of exactly the limit', () => {
    const reader = new FrameReader()
    reader.push(encode([{ type: 4, stream: 1, channel: 7, payload: new Uint8Array(receivedPayloadLimit) }]))
    expect(reader.next()).toBe(true)
    expect(reader.payload.length).toBe(receivedPayloadLimit)
  })
})

describe('decoders', () => {
  const decoders: Record<string, (payload: Buffer) => unknown> = {
    hello: decodeHello,
    exit: decodeExit,
    opened: decodeOpened,
    ack: decodeAck,
    eof: decodeEof,
    reply: decodeReply,
    stats: (payload) => decodeStats(new PayloadReader(payload)),
    entry: (payload) => decodeEntry(new PayloadReader(payload)),
  }

  it.each(Object.entries(decoders))('%s never throws anything but AgentProtocolError', (_name, decode) => {
    // Small numbers make the counts, kinds and lengths plausible now and then.
    const bytes = fc.uint8Array({ maxLength: 200 })
    const small = fc.array(fc.oneof(fc.constant(0), fc.integer({ min: 0, max: 3 }), fc.integer({ min: 0, max: 255 })), { maxLength: 200 })
    fc.assert(
      fc.property(fc.oneof(bytes, small), (garbage) => {
        try {
          decode(Buffer.from(garbage))
        } catch (error) {
          expect(error).toBeInstanceOf(AgentProtocolError)
        }
      }),
    )
  })
})
