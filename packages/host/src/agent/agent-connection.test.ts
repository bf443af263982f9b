import { duplexPair } from 'node:stream'
import fc from 'fast-check'
import { afterEach, describe, expect, it } from 'vitest'
import { AgentProtocolError } from './agent-protocol-error.ts'
import { connectAgent } from './connect-agent.ts'
import type { AgentConnection, AgentExec, AgentOutput } from './connection.ts'
import type { HelloChannel } from './decode-frames.ts'
import { feature, frameType, marker, requestOp, stdinWindow } from './frame-constants.ts'
import { agentFrame, agentFrames, connectScripted, ScriptedAgent } from './scripted-agent.ts'

const open: AgentConnection[] = []
afterEach(() => {
  for (const connection of open.splice(0)) connection.close()
})

async function connect(channels: readonly HelloChannel[] = [], after?: Buffer) {
  const scripted = await connectScripted(channels, after)
  open.push(scripted.connection)
  return scripted
}

function collector() {
  const pieces: { stream: string; offset: number; text: string }[] = []
  const output: AgentOutput = (stream, offset, bytes) => {
    pieces.push({ stream, offset, text: bytes.toString() })
    return undefined
  }
  return { pieces, output }
}

/** An output callback whose promises a test settles one by one. */
function gate() {
  const pieces: { offset: number; text: string; settle: (verdict?: 'discard') => void; reject: (error: Error) => void }[] = []
  const waiting: (() => void)[] = []
  const output: AgentOutput = (_stream, offset, bytes) =>
    new Promise((resolve, reject) => {
      pieces.push({ offset, text: bytes.toString(), settle: (verdict) => resolve(verdict), reject })
      waiting.shift()?.()
    })
  const piece = async (index: number) => {
    while (pieces.length <= index) await new Promise<void>((resolve) => waiting.push(resolve))
    return pieces[index] as (typeof pieces)[number]
  }
  return { pieces, output, piece }
}

const request = { argv: ['sh'], env: {} }

function live(channel: number, parts: Partial<HelloChannel> = {}): HelloChannel {
  const stream = { sent: 0, acked: 0, eof: false }
  return { channel, kind: 'exec', exited: false, pid: 9, received: 0, stdout: stream, stderr: stream, ...parts }
}

describe('handshake', () => {
  it('skips what is left over, an old marker and a HELLO with another nonce', async () => {
    const [ours, theirs] = duplexPair()
    const agent = new ScriptedAgent(theirs)
    const connecting = connectAgent(ours, { timeoutMs: 5_000 })
    const nonce = await agent.nonce
    const bytes = Buffer.concat([
      Buffer.from('\0MAGS-AGENT'),
      marker,
      agentFrames.hello(Buffer.alloc(16, 7)),
      marker,
      marker,
      agentFrames.hello(nonce, [live(3)]),
      agentFrames.data(3, 1, 0, 'early'),
    ])
    for (const byte of bytes) theirs.write(Buffer.from([byte]))
    const connection = await connecting
    open.push(connection)
    expect(connection.liveChannels).toEqual([{ channel: 3, kind: 'exec', exited: false, pid: 9 }])
  })

  it('rejects a HELLO that counts too many channels', async () => {
    const [ours, theirs] = duplexPair()
    const agent = new ScriptedAgent(theirs)
    const connecting = connectAgent(ours)
    agent.send(
      marker,
      agentFrame(frameType.hello, 0, 0, (w) => w.u32(1)),
    )
    const nonce = await agent.nonce
    agent.send(
      marker,
      agentFrame(frameType.hello, 0, 0, (w) => w.u32(1).bytes(nonce).u8(0).u32(257)),
    )
    await expect(connecting).rejects.toBeInstanceOf(AgentProtocolError)
    expect(ours.destroyed).toBe(true)
  })

  it('rejects when nobody answers, when the other end hangs up and when there is no socket', async () => {
    const [ours] = duplexPair()
    await expect(connectAgent(ours, { timeoutMs: 1 })).rejects.toThrow('did not answer within 1 ms')
    const [others, theirs] = duplexPair()
    const connecting = connectAgent(others)
    theirs.resume()
    theirs.end()
    await expect(connecting).rejects.toThrow('hung up')
    await expect(connectAgent('/nonexistent/agent.sock')).rejects.toMatchObject({ code: 'sandbox_failed', cause: { code: 'ENOENT' } })
  })
})

describe('exec', () => {
  it('hands output over in order and resolves pid, exit and eof', async () => {
    const { connection, agent } = await connect()
    const { pieces, output } = collector()
    const exec = connection.exec({ argv: ['echo', 'hi'], env: { A: '1' }, cwd: '/root' }, output)
    expect((await agent.next()).type).toBe(frameType.exec)
    agent.send(
      agentFrames.opened(exec.channel, 77),
      agentFrames.data(exec.channel, 1, 0, 'he'),
      agentFrames.data(exec.channel, 2, 0, 'oops'),
      agentFrames.data(exec.channel, 1, 2, 'llo'),
      agentFrames.exit(exec.channel, 3),
    )
    expect(await exec.pid).toBe(77)
    expect(await exec.exit).toEqual({ kind: 'exited', code: 3, userCpuMs: 1.5, systemCpuMs: 2.5, maxRssKb: 1824, message: '' })
    expect(pieces).toEqual([
      { stream: 'stdout', offset: 0, text: 'he' },
      { stream: 'stderr', offset: 0, text: 'oops' },
      { stream: 'stdout', offset: 2, text: 'llo' },
    ])
    const acks = [await agent.next(), await agent.next()]
    expect(acks.map(({ type, stream, payload }) => [type, stream, payload.readUInt32LE(0)])).toEqual([
      [frameType.ack, 1, 5],
      [frameType.ack, 2, 4],
    ])
    agent.send(agentFrames.data(exec.channel, 1, 5, ' daemon'), agentFrames.eof(exec.channel, 1, 12), agentFrames.eof(exec.channel, 2, 4, 10))
    expect(await exec.eof).toEqual({ droppedBytes: 10 })
    expect(pieces.at(-1)).toEqual({ stream: 'stdout', offset: 5, text: ' daemon' })
    exec.close()
    expect((await agent.nextOf(frameType.close)).channel).toBe(exec.channel)
  })

  it('acknowledges, goes on and exits only when the callback has settled', async () => {
    const { connection, agent } = await connect()
    const { pieces, output, piece } = gate()
    const exec = connection.exec(request, output)
    const settled: string[] = []
    void exec.exit.then(() => settled.push('exit'))
    agent.send(
      agentFrames.data(exec.channel, 1, 0, 'one'),
      agentFrames.data(exec.channel, 1, 3, 'two'),
      agentFrames.data(exec.channel, 1, 6, 'three'),
      agentFrames.exit(exec.channel),
    )
    const first = await piece(0)
    expect(first.text).toBe('one')
    await roundTrip(connection, agent)
    expect(pieces).toHaveLength(1)
    expect(settled).toEqual([])
    first.settle()
    // What came meanwhile is one piece.
    const second = await piece(1)
    expect(second).toMatchObject({ offset: 3, text: 'twothree' })
    const ack = await agent.nextOf(frameType.ack)
    expect(ack.payload.readUInt32LE(0)).toBe(3)
    expect(settled).toEqual([])
    second.settle()
    await exec.exit
    expect((await agent.nextOf(frameType.ack)).payload.readUInt32LE(0)).toBe(11)
  })

  it('sends DISCARD once and acknowledges all that comes later unseen', async () => {
    const { connection, agent } = await connect()
    const { pieces, output, piece } = gate()
    const exec = connection.exec(request, output)
    agent.send(agentFrames.data(exec.channel, 1, 0, 'one'), agentFrames.data(exec.channel, 1, 3, 'two'))
    const first = await piece(0)
    first.settle('discard')
    expect(await agent.nextOf(frameType.discard)).toMatchObject({ channel: exec.channel, stream: 1 })
    expect((await agent.nextOf(frameType.ack)).payload.readUInt32LE(0)).toBe(6)
    agent.send(
      agentFrames.data(exec.channel, 1, 6, 'x'),
      agentFrames.eof(exec.channel, 1, 7, 99),
      agentFrames.eof(exec.channel, 2, 0),
      agentFrames.exit(exec.channel),
    )
    expect((await agent.nextOf(frameType.ack)).payload.readUInt32LE(0)).toBe(7)
    await exec.exit
    expect(await exec.eof).toEqual({ droppedBytes: 99 })
    expect(pieces).toHaveLength(1)
  })

  it('fails and closes the channel when the callback rejects; other channels go on', async () => {
    const { connection, agent } = await connect()
    const exec = connection.exec(request, () => Promise.reject(new Error('disk full')))
    const other = connection.exec(request, () => undefined)
    agent.send(agentFrames.data(exec.channel, 1, 0, 'one'))
    await expect(exec.exit).rejects.toThrow('disk full')
    await expect(exec.eof).rejects.toThrow('disk full')
    expect((await agent.nextOf(frameType.close)).channel).toBe(exec.channel)
    // Frames that were on their way are no offence.
    agent.send(agentFrames.data(exec.channel, 1, 3, 'two'), agentFrames.exit(exec.channel), agentFrames.exit(other.channel))
    expect((await other.exit).code).toBe(0)
  })

  it('rejects pid and resolves eof when the program did not start', async () => {
    const { connection, agent } = await connect()
    const exec = connection.exec(request, () => undefined)
    agent.send(agentFrames.exit(exec.channel, 2, 2, 'nosuch: No such file or directory'))
    await expect(exec.pid).rejects.toThrow('nosuch')
    expect(await exec.exit).toMatchObject({ kind: 'not-started', code: 2 })
    expect(await exec.eof).toEqual({ droppedBytes: 0 })
  })

  it('keeps stdin within its window and ends it after the last byte', async () => {
    const { connection, agent } = await connect()
    const exec = connection.exec({ ...request, stdin: true }, () => undefined)
    const bytes = Buffer.alloc(stdinWindow + 10, 'x')
    const written = exec.writeStdin(bytes).then(() => 'written')
    exec.endStdin()
    let got = 0
    while (got < stdinWindow) {
      const data = await agent.nextOf(frameType.data)
      expect(Number(data.payload.readBigUInt64LE(0))).toBe(got)
      got += data.payload.length - 8
    }
    expect(got).toBe(stdinWindow)
    expect(await Promise.race([written, roundTrip(connection, agent)])).toBe('round trip')
    agent.send(agentFrames.ack(exec.channel, 5))
    const next = await agent.nextOf(frameType.data)
    expect(next.payload.length - 8).toBe(5)
    agent.send(agentFrames.ack(exec.channel, stdinWindow))
    expect((await agent.nextOf(frameType.data)).payload.length - 8).toBe(5)
    expect((await agent.nextOf(frameType.eof)).payload.readUInt32LE(0)).toBe(stdinWindow + 10)
    expect(await written).toBe('written')
    await expect(exec.writeStdin(Buffer.from('more'))).rejects.toThrow('after end')
    agent.send(agentFrames.exit(exec.channel))
    await exec.exit
    await expect(exec.writeStdin(Buffer.from('more'))).rejects.toThrow('reads no more')
  })

  it('refuses a request the agent would refuse, before anything is sent', async () => {
    const { connection } = await connect()
    expect(() => connection.exec({ argv: [], env: {} }, () => undefined)).toThrow('empty')
    expect(() => connection.exec({ argv: ['a\0b'], env: {} }, () => undefined)).toThrow('NUL')
    expect(() => connection.exec({ argv: ['a'], env: { X: 'y'.repeat(600_000) } }, () => undefined)).toThrow('over 524288 bytes')
    expect(() => connection.exec({ argv: ['a'], env: {}, script: Buffer.alloc(3 << 20) }, () => undefined)).toThrow('limit is 2097152')
  })

  it('numbers channels so that a refused request leaves no gap that a frame could use', async () => {
    const { connection, agent } = await connect()
    expect(() => connection.exec({ argv: [], env: {} }, () => undefined)).toThrow()
    agent.send(agentFrames.opened(1))
    expect(await connection.closed).toBeInstanceOf(AgentProtocolError)
  })
})

describe('the end of a connection', () => {
  it('settles everything after our close', async () => {
    const { connection, agent } = await connect()
    const exec = connection.exec(request, () => undefined)
    const dial = connection.dial(80)
    const ping = connection.ping()
    await agent.next()
    connection.close()
    expect(await connection.closed).toBeUndefined()
    for (const promise of [exec.pid, exec.exit, exec.eof, dial, ping, connection.ping(), connection.dial(1), connection.exec(request, () => undefined).exit]) {
      await expect(promise).rejects.toThrow('was closed')
    }
  })

  it('delivers what came before the stream ended, then rejects', async () => {
    const { connection, agent } = await connect()
    const { output, piece } = gate()
    const exec = connection.exec(request, output)
    const done = connection.exec(request, () => undefined)
    agent.send(
      agentFrames.data(exec.channel, 1, 0, 'last '),
      agentFrames.data(exec.channel, 1, 5, 'words'),
      agentFrames.data(done.channel, 1, 0, 'x'),
      agentFrames.exit(done.channel, 5),
    )
    agent.stream.end()
    const first = await piece(0)
    expect((await connection.closed)?.message).toContain('closed its connection')
    expect((await done.exit).code).toBe(5)
    await expect(done.eof).rejects.toThrow('closed its connection')
    first.settle()
    const second = await piece(1)
    expect(second.text).toBe('words')
    second.settle()
    await expect(exec.exit).rejects.toThrow('closed its connection')
  })
})

describe('hostile frames', () => {
  const cases: Record<string, (exec: AgentExec) => Uint8Array[]> = {
    'an unknown channel': () => [agentFrames.opened(99)],
    'a HELLO in the middle': () => [agentFrames.hello(Buffer.alloc(16))],
    'a frame only hosts send': (exec) => [agentFrame(frameType.exec, 0, exec.channel)],
    'an unknown type': (exec) => [agentFrame(200, 0, exec.channel)],
    'output on stream 0': (exec) => [agentFrames.data(exec.channel, 0, 0, 'x')],
    'output on stream 3': (exec) => [agentFrames.data(exec.channel, 3, 0, 'x')],
    'a gap': (exec) => [agentFrames.data(exec.channel, 1, 1, 'x')],
    'a repetition': (exec) => [agentFrames.data(exec.channel, 1, 0, 'xy'), agentFrames.data(exec.channel, 1, 1, 'y')],
    'an offset beyond 2^53': (exec) => [agentFrame(frameType.data, 1, exec.channel, (w) => w.u64(2n ** 60n).u8(1))],
    'DATA without offset': (exec) => [agentFrame(frameType.data, 1, exec.channel)],
    'output past the window': (exec) => [0, 1, 2, 3, 4].map((i) => agentFrames.data(exec.channel, 2, i * 60_000, Buffer.alloc(60_000))),
    'output after its end': (exec) => [agentFrames.eof(exec.channel, 1, 0), agentFrames.data(exec.channel, 1, 0, 'x')],
    'two ends': (exec) => [agentFrames.eof(exec.channel, 1, 0), agentFrames.eof(exec.channel, 1, 0)],
    'an end elsewhere': (exec) => [agentFrames.eof(exec.channel, 1, 7)],
    'two exits': (exec) => [agentFrames.exit(exec.channel), agentFrames.exit(exec.channel)],
    'opened twice': (exec) => [agentFrames.opened(exec.channel), agentFrames.opened(exec.channel)],
    'an exit of an unknown kind': (exec) => [agentFrames.exit(exec.channel, 0, 5)],
    'a short exit': (exec) => [agentFrame(frameType.exit, 0, exec.channel, (w) => w.u8(0))],
    'a long exit': (exec) => [agentFrame(frameType.exit, 0, exec.channel, (w) => w.u8(0).u32(0).u64(0).u64(0).u64(0).string('').u8(0))],
    'stdin acknowledged that was never sent': (exec) => [agentFrames.ack(exec.channel, 1)],
    'a reply nobody asked for': () => [agentFrames.reply(9)],
    'a negative errno': () => [agentFrames.reply(1, 0xffff_ffff)],
    'a reply that is too short': () => [agentFrames.reply(1, 0, (w) => w.u8(1))],
    'a reply that is too long': () => [agentFrames.reply(1, 0, (w) => w.bytes(Buffer.alloc(37)))],
    'a second reply': () => [agentFrames.reply(1, 5), agentFrames.reply(1, 5)],
    'a frame over its limit': (exec) => [agentFrame(frameType.data, 1, exec.channel, (w) => w.bytes(Buffer.alloc(65_537)))],
    'reserved bytes': () => [Buffer.from([0, 0, 0, 0, 14, 0, 1, 0, 1, 0, 0, 0])],
  }

  it.each(Object.entries(cases))('%s ends the connection', async (_name, frames) => {
    const { connection, agent } = await connect()
    // A callback that never settles: the window stays taken.
    const exec = connection.exec(request, () => new Promise(() => undefined))
    const stats = connection.stats()
    const numbers = [await agent.next(), await agent.next()]
    expect(numbers[1]?.channel).toBe(1)
    agent.send(...frames(exec))
    const error = await connection.closed
    expect(error).toBeInstanceOf(AgentProtocolError)
    await expect(stats).rejects.toThrow()
    await expect(connection.ping()).rejects.toBe(error)
  })

  it('an agent that knows no IPv6 addresses is not asked to take one', async () => {
    const network6 = { address: '2001:db8::9', gateway: 'fe80::1', gatewayMac: '02:4d:0a:d5:00:01' }
    for (const features of [undefined, feature.init]) {
      const { connection, agent } = await connectScripted([], undefined, features)
      open.push(connection)
      await expect(connection.identity({ network6 })).rejects.toMatchObject({ code: 'not_available' })
      void connection.ping().catch(() => undefined)
      expect((await agent.next()).payload[0]).toBe(requestOp.ping)
    }
    const { connection, agent } = await connectScripted([], undefined, feature.ipv6)
    open.push(connection)
    const asked = connection.identity({ network6 })
    expect((await agent.next()).payload[0]).toBe(requestOp.identity)
    agent.send(agentFrames.reply(1))
    await asked
  })

  it('a dial that opens and breaks in one chunk rejects or errs, and nothing goes uncaught', async () => {
    const { connection, agent } = await connectScripted()
    const uncaught: unknown[] = []
    const catchIt = (error: unknown) => uncaught.push(error)
    process.prependListener('uncaughtException', catchIt)
    try {
      const dial = connection.dial(80)
      agent.send(
        agentFrame(frameType.opened, 0, 1, (w) => w.u32(0)),
        agentFrame(frameType.ack, 0, 99, (w) => w.u64(0n)),
      )
      expect((await connection.closed)?.message).toContain('broke the agent protocol')
      const duplex = await dial
      await new Promise((resolve) => setImmediate(resolve))
      expect(duplex.destroyed).toBe(true)
      expect(uncaught).toEqual([])
    } finally {
      process.off('uncaughtException', catchIt)
    }
  })

  it('random frames never do anything but end it with AgentProtocolError', async () => {
    const frame = fc.tuple(fc.integer({ min: 0, max: 15 }), fc.integer({ min: 0, max: 3 }), fc.integer({ min: 0, max: 4 }), fc.uint8Array({ maxLength: 60 }))
    await fc.assert(
      fc.asyncProperty(fc.array(frame, { minLength: 1, maxLength: 20 }), async (frames) => {
        const { connection, agent } = await connectScripted()
        const exec = connection.exec({ ...request, stdin: true }, () => undefined)
        const dial = connection.dial(80)
        dial.then((duplex) => duplex.on('error', () => undefined)).catch(() => undefined)
        void connection.stats().catch(() => undefined)
        agent.send(...frames.map(([type, stream, channel, payload]) => agentFrame(type, stream, channel, (w) => w.bytes(payload))))
        agent.stream.end()
        const error = await connection.closed
        expect(error?.message).toMatch(/broke the agent protocol|closed its connection/)
        await Promise.allSettled([exec.exit, exec.pid, dial])
      }),
      { numRuns: 200 },
    )
  })

  it('a million frames in one chunk leave the event loop turns, and keep their order', async () => {
    const { connection, agent } = await connect()
    let next = 0
    const turns: number[] = []
    const exec = connection.exec({ ...request, windowBytes: 1 << 20 }, (_stream, offset) => {
      expect(offset).toBe(next)
      next = offset + 1
      return undefined
    })
    const closed = connection.exec(request, () => undefined)
    closed.close()
    await agent.nextOf(frameType.close)
    const filler = agentFrames.opened(closed.channel)
    const count = 1_000_000
    const chunk = Buffer.alloc(count * filler.length + 3 * 21 + agentFrames.exit(exec.channel).length)
    let at = 0
    const put = (frame: Buffer) => {
      at += frame.copy(chunk, at)
    }
    for (let i = 0; i < 3; i++) {
      put(agentFrames.data(exec.channel, 1, i, 'x'))
      for (let j = 0; j < Math.floor(count / 3); j++) put(filler)
    }
    put(agentFrames.exit(exec.channel))
    let running = true
    const turn = () => {
      turns.push(next)
      if (running) setImmediate(turn)
    }
    setImmediate(turn)
    agent.send(chunk.subarray(0, at))
    await exec.exit
    running = false
    expect(next).toBe(3)
    // Turns of the loop were given in the midst of it, not only before and after.
    expect(turns.filter((done) => done === 2).length).toBeGreaterThan(1)
  })

  it('does not queue acknowledgements without bound for an agent that never reads', async () => {
    const [ours, theirs] = duplexPair({ highWaterMark: 1 << 10 })
    const agent = new ScriptedAgent(theirs)
    const connecting = connectAgent(ours)
    agent.send(marker, agentFrames.hello(await agent.nonce))
    const connection = await connecting
    open.push(connection)
    const exec = connection.exec({ ...request, windowBytes: 1 << 20 }, () => undefined)
    await agent.nextOf(frameType.exec)
    theirs.pause()
    for (let offset = 0; offset < 20_000; offset++) {
      agent.send(agentFrames.data(exec.channel, 1, offset, 'x'))
      if (offset % 10 === 0) await new Promise((resolve) => setImmediate(resolve))
    }
    expect(ours.writableLength).toBeLessThan(4 << 10)
  })
})

describe('resumeExec', () => {
  const stdout = { sent: 110, acked: 100, eof: false }

  it('skips what is safe already and goes on exactly once', async () => {
    const early = Buffer.concat([agentFrames.data(7, 1, 100, '0123456789'), agentFrames.data(7, 2, 0, 'err')])
    const { connection, agent } = await connect([live(7, { stdout })], early)
    await roundTrip(connection, agent)
    const { pieces, output } = collector()
    const exec = connection.resumeExec(7, { stdout: 104, stderr: 0 }, output)
    expect(await exec.pid).toBe(9)
    agent.send(agentFrames.data(7, 1, 110, 'more'), agentFrames.exit(7, 4))
    expect((await exec.exit).code).toBe(4)
    expect(pieces).toEqual([
      { stream: 'stdout', offset: 104, text: '456789' },
      { stream: 'stderr', offset: 0, text: 'err' },
      { stream: 'stdout', offset: 110, text: 'more' },
    ])
    expect(connection.exec(request, () => undefined).channel).toBe(8)
  })

  it('refuses a channel that is not there, was taken, or has sent less than is stored', async () => {
    const { connection } = await connect([live(7, { stdout })])
    expect(() => connection.resumeExec(8, { stdout: 0, stderr: 0 }, () => undefined)).toThrow('no program waits')
    expect(() => connection.resumeExec(7, { stdout: 111, stderr: 0 }, () => undefined)).toThrow('has sent less')
    connection.resumeExec(7, { stdout: 100, stderr: 0 }, () => undefined)
    expect(() => connection.resumeExec(7, { stdout: 100, stderr: 0 }, () => undefined)).toThrow('no program waits')
  })

  it('closes dials that outlived their dialler', async () => {
    const { connection, agent } = await connect([live(5, { kind: 'dial' })], agentFrames.data(5, 1, 0, 'late'))
    expect(connection.liveChannels).toEqual([])
    expect(await agent.next()).toMatchObject({ type: frameType.close, channel: 5 })
    await roundTrip(connection, agent)
  })

  it('stops reading while too much waits, and goes on once somebody takes it', async () => {
    const channels = Array.from({ length: 20 }, (_, index) => live(index + 1))
    const { connection, agent } = await connect(channels)
    for (const { channel } of channels) for (let i = 0; i < 16; i++) agent.send(agentFrames.data(channel, 1, i * 60_000, Buffer.alloc(60_000)))
    agent.send(agentFrames.exit(20, 6))
    let bytes = 0
    const execs = channels.map(({ channel }) =>
      connection.resumeExec(channel, { stdout: 0, stderr: 0 }, (_stream, _offset, piece) => {
        bytes += piece.length
        return undefined
      }),
    )
    expect((await (execs[19] as AgentExec).exit).code).toBe(6)
    expect(bytes).toBe(20 * 16 * 60_000)
  })
})

describe('dial', () => {
  it('carries bytes both ways with half-close', async () => {
    const { connection, agent } = await connect()
    const dialling = connection.dial(8080)
    const { channel, payload } = await agent.nextOf(frameType.dial)
    expect(payload.readUInt16LE(0)).toBe(8080)
    agent.send(agentFrames.opened(channel, 0))
    const socket = await dialling
    socket.end('request')
    const data = await agent.nextOf(frameType.data)
    expect(data.payload.subarray(8).toString()).toBe('request')
    expect((await agent.nextOf(frameType.eof)).payload.readUInt32LE(0)).toBe(7)
    agent.send(agentFrames.ack(channel, 7), agentFrames.data(channel, 1, 0, 'ans'), agentFrames.data(channel, 1, 3, 'wer'), agentFrames.eof(channel, 1, 6))
    const answer = await socket.toArray()
    expect(Buffer.concat(answer).toString()).toBe('answer')
    expect((await agent.nextOf(frameType.close)).channel).toBe(channel)
  })

  it('acknowledges only what the reader took', async () => {
    const { connection, agent } = await connect()
    const dialling = connection.dial(8080)
    const { channel } = await agent.nextOf(frameType.dial)
    agent.send(agentFrames.opened(channel, 0))
    const socket = await dialling
    for (let i = 0; i < 4; i++) agent.send(agentFrames.data(channel, 1, i * 60_000, Buffer.alloc(60_000)))
    await roundTrip(connection, agent)
    expect(socket.readableLength).toBeLessThan(240_000)
    let got = 0
    socket.on('data', (bytes: Buffer) => {
      got += bytes.length
    })
    agent.send(agentFrames.eof(channel, 1, 240_000))
    await new Promise((resolve) => socket.once('end', resolve))
    expect(got).toBe(240_000)
    socket.destroy()
  })

  it('rejects with the words of what failed', async () => {
    const { connection, agent } = await connect()
    const dialling = connection.dial(81)
    const { channel } = await agent.nextOf(frameType.dial)
    agent.send(agentFrames.exit(channel, 111, 2))
    await expect(dialling).rejects.toThrow('port 81 of the sandbox: connection refused (ECONNREFUSED)')
    await expect(connection.dial(0)).rejects.toThrow('not a port')
  })
})

describe('requests', () => {
  it('match their replies in any order and carry errors with their errno', async () => {
    const { connection, agent } = await connect()
    const first = connection.ping()
    const second = connection.attachDisk('ws', 'f0f1f2f3-f4f5-f6f7-f8f9-fafbfcfdfeff')
    const numbers = [(await agent.next()).channel, (await agent.next()).channel]
    agent.send(agentFrames.reply(numbers[1] as number, 2), agentFrames.reply(numbers[0] as number))
    await first
    await expect(second).rejects.toMatchObject({
      code: 'not_found',
      message: 'attach disk ws: no such file or directory (ENOENT)',
      details: { errno: 2, errno_name: 'ENOENT' },
    })
  })

  it('a reply after the time-out is no offence', async () => {
    const { connection, agent } = await connect()
    const late = connection.ping(1)
    const { channel } = await agent.next()
    await expect(late).rejects.toThrow('did not answer within 1 ms')
    agent.send(agentFrames.reply(channel))
    await roundTrip(connection, agent)
  })
})

/** When this has come back, everything sent before it has been handled by both ends. */
async function roundTrip(connection: AgentConnection, agent: ScriptedAgent) {
  const ping = connection.ping()
  agent.send(agentFrames.reply((await agent.nextOf(frameType.request)).channel))
  await ping
  return 'round trip'
}
