import { Duplex, duplexPair } from 'node:stream'
import { describe, expect, it } from 'vitest'
import { isKeptAttribute } from './layer-attributes.ts'
import { ask, entryKinds, payloadLimitBytes, tell } from './layer-frame-constants.ts'
import { compareLayerPaths, isLayerPath } from './layer-path.ts'
import type { LayerChange, LayerEntry, LayerWrite } from './layer-session.ts'
import { StreamLayerSession } from './stream-layer-session.ts'
import { collect, gather } from './testing/collect.ts'

function frame(type: number, payload: Buffer = Buffer.alloc(0)): Buffer {
  const header = Buffer.alloc(5)
  header.writeUInt32LE(payload.length)
  header[4] = type
  return Buffer.concat([header, payload])
}

function u16(value: number) {
  const bytes = Buffer.alloc(2)
  bytes.writeUInt16LE(value)
  return bytes
}

function u32(value: number) {
  const bytes = Buffer.alloc(4)
  bytes.writeUInt32LE(value)
  return bytes
}

function u64(value: number | bigint) {
  const bytes = Buffer.alloc(8)
  bytes.writeBigInt64LE(BigInt(value))
  return bytes
}

function span(text: string) {
  return Buffer.concat([u16(text.length), Buffer.from(text, 'latin1')])
}

interface Told {
  readonly kind?: (typeof entryKinds)[number]
  readonly mode?: number
  readonly target?: string
  readonly attributes?: readonly (readonly [string, string])[]
}

function entry(path: string, { kind = 'file', mode = 0o644, target = '', attributes = [] }: Told = {}): Buffer {
  const fixed = [Buffer.from([entryKinds.indexOf(kind) + 1]), u16(mode), u32(7), u32(8), u64(9), u64(10), u64(11), u64(12), u32(1)]
  const attribute = ([name, value]: readonly [string, string]) => [
    Buffer.from([name.length]),
    Buffer.from(name, 'latin1'),
    u32(value.length),
    Buffer.from(value),
  ]
  return Buffer.concat([...fixed, span(path), span(target), u16(attributes.length), ...attributes.flatMap(attribute)])
}

const ready = frame(tell.ready, u32(1))
const root = entry('', { kind: 'directory', mode: 0o755 })
const done = frame(tell.done)
const endStamp = Buffer.concat([u64(1), u64(2), u64(3), u64(4)])

/** A session with a worker that says this and hangs up, whatever is asked. */
async function scripted(...said: readonly Buffer[]): Promise<StreamLayerSession> {
  const [ours, theirs] = duplexPair()
  theirs.on('error', () => undefined)
  theirs.resume()
  theirs.end(Buffer.concat(said))
  return StreamLayerSession.open(ours, '')
}

/** A worker that says this, and then nothing. */
function mute(...said: readonly Buffer[]): Duplex {
  const [ours, theirs] = duplexPair()
  theirs.on('error', () => undefined)
  theirs.resume()
  theirs.write(Buffer.concat(said))
  return ours
}

const broke = { code: 'sandbox_failed', message: expect.stringContaining('broke its protocol') }
const walked = [ready, frame(tell.entries, root), done]

describe('a layer session', () => {
  it('refuses another version, another greeting and a worker that is gone', async () => {
    await expect(scripted(frame(tell.ready, u32(2)))).rejects.toMatchObject(broke)
    await expect(scripted(done)).rejects.toMatchObject(broke)
    await expect(scripted()).rejects.toMatchObject({ code: 'sandbox_failed' })
    await expect(scripted(frame(tell.ready, Buffer.alloc(5)))).rejects.toMatchObject(broke)
  })

  it('passes the words of an error on, and is over then', async () => {
    const error = frame(tell.error, Buffer.concat([u32(75), span('a layer may have 2,000,000 entries'), span('a/b')]))
    const session = await scripted(ready, error)
    const refused = { code: 'workspace_not_savable', message: expect.stringContaining('2,000,000 entries'), details: { errno_name: 'EOVERFLOW', path: 'a/b' } }
    await expect(collect(session.walk())).rejects.toMatchObject(refused)
    await expect(collect(session.walk())).rejects.toMatchObject(refused)
    await expect(session.write((async function* () {})())).rejects.toMatchObject(refused)
  })

  it('gives up a worker that owes an answer and says nothing, but not one that writes', async () => {
    const silent = { code: 'sandbox_failed', message: 'the layer worker has said nothing for 0.05 s' }
    await expect(StreamLayerSession.open(mute(), '', 50)).rejects.toMatchObject(silent)
    for (const ask of [(session: StreamLayerSession) => collect(session.walk()), (session: StreamLayerSession) => gather(session.read([Buffer.from('a')]))]) {
      const session = await StreamLayerSession.open(mute(ready), '', 50)
      await expect(ask(session)).rejects.toMatchObject(silent)
      await expect(ask(session)).rejects.toMatchObject(silent)
    }
    const [ours, theirs] = duplexPair()
    theirs.resume()
    theirs.write(ready)
    const session = await StreamLayerSession.open(ours, '', 50)
    setTimeout(() => theirs.write(done), 200)
    await session.write((async function* () {})())
    session.close()
  })

  const entryCases: Record<string, readonly Buffer[]> = {
    'no root': [entry('a')],
    'nothing at all': [],
    'a path with ..': [root, entry('../a')],
    'an absolute path': [root, entry('/etc')],
    'a path with a NUL': [root, entry('a\0b')],
    'paths out of order': [root, entry('b'), entry('a')],
    'a path below a file': [root, entry('a'), entry('a/b')],
    'a root that is a file': [entry('')],
    'a mode that cannot be': [root, entry('a', { mode: 0o10000 })],
    'a symbolic link to nowhere': [root, entry('a', { kind: 'symlink' })],
    'a target with a NUL': [root, entry('a', { kind: 'symlink', target: 'b\0' })],
    'a target that is too long': [root, entry('a', { kind: 'symlink', target: 'b'.repeat(4096) })],
    'a file with a target': [root, entry('a', { target: 'b' })],
    'an attribute no layer keeps': [root, entry('a', { attributes: [['trusted.overlay.redirect', '/x']] })],
    'an opaque mark that is none': [root, entry('a', { kind: 'directory', attributes: [['trusted.overlay.opaque', 'x']] })],
    'attributes out of order': [
      root,
      entry('a', {
        attributes: [
          ['user.b', ''],
          ['user.a', ''],
        ],
      }),
    ],
    'an attribute twice': [
      root,
      entry('a', {
        attributes: [
          ['user.a', ''],
          ['user.a', ''],
        ],
      }),
    ],
    'too many attributes': [
      root,
      entry('a', {
        attributes: [
          ['user.a', 'x'.repeat(40_000)],
          ['user.b', 'x'.repeat(30_000)],
        ],
      }),
    ],
    'a kind that is none': [root, Buffer.concat([Buffer.from([8]), entry('a').subarray(1)])],
    'half an entry': [root, entry('a').subarray(0, 20)],
  }
  for (const [what, entries] of Object.entries(entryCases)) {
    it(`refuses a walk with ${what}`, async () => {
      const session = await scripted(ready, ...(entries.length ? [frame(tell.entries, Buffer.concat(entries))] : []), done)
      await expect(collect(session.walk())).rejects.toMatchObject(broke)
    })
  }

  it('refuses frames that are too long, empty, or out of place', async () => {
    for (const bytes of [u32(payloadLimitBytes + 1), u32(0xffff_ffff)]) {
      const session = await scripted(ready, bytes, Buffer.from([tell.entries]))
      await expect(collect(session.walk())).rejects.toMatchObject(broke)
    }
    for (const bytes of [frame(tell.entries), frame(tell.changed, root), frame(77), ready]) {
      const session = await scripted(ready, bytes, done)
      await expect(collect(session.walk())).rejects.toMatchObject(broke)
    }
  })

  it('refuses changes out of order', async () => {
    const removed = (path: string) => Buffer.concat([Buffer.from([2]), span(path)])
    const present = (path: string) => Buffer.concat([Buffer.from([1]), entry(path)])
    const good = await scripted(...walked, frame(tell.changed, Buffer.concat([present('a'), removed('a/b'), present('a!')])), done)
    await collect(good.walk())
    expect(await collect(good.changes())).toHaveLength(3)
    for (const [first, second] of [
      ['a', 'a'],
      ['a!', 'a/b'],
      ['b', 'a'],
    ] as const) {
      const session = await scripted(...walked, frame(tell.changed, removed(first)), frame(tell.changed, present(second)), done)
      await collect(session.walk())
      await expect(collect(session.changes())).rejects.toMatchObject(broke)
    }
    for (const path of ['', '..', '/a']) {
      const session = await scripted(...walked, frame(tell.changed, removed(path)), done)
      await collect(session.walk())
      await expect(collect(session.changes())).rejects.toMatchObject(broke)
    }
  })

  it('needs a walk before changes, and does one thing at a time', async () => {
    const session = await scripted(...walked)
    await expect(collect(session.changes())).rejects.toThrow('before a walk')
    const walk = session.walk()
    await walk.next()
    await expect(collect(session.walk())).rejects.toThrow('one thing at a time')
    expect((await walk.next()).done).toBe(true)
  })

  it('refuses contents nobody asked for, in another order, or empty', async () => {
    const paths = [Buffer.from('a'), Buffer.from('b')]
    const data = (index: number) => frame(tell.data, Buffer.concat([u32(index), Buffer.from('x')]))
    const end = (index: number) => frame(tell.end, Buffer.concat([u32(index), endStamp]))
    const missing = (index: number) => frame(tell.missing, u32(index))
    const hole = (index: number, length: number) => frame(tell.hole, Buffer.concat([u32(index), u64(length)]))
    const good = await scripted(ready, hole(0, 70_000), data(0), end(0), missing(1), done)
    expect((await gather(good.read(paths))).map(({ kind }) => kind)).toEqual(['hole', 'data', 'end', 'missing'])
    const bad = [
      [data(1)],
      [end(0), data(0)],
      [end(0), end(1), end(2)],
      [end(0)],
      [data(0), missing(0)],
      [hole(0, 0)],
      [frame(tell.data, u32(0))],
      [hole(0, 2 ** 52), hole(0, 2 ** 52), hole(0, 2 ** 52)],
      [missing(0), missing(1), missing(2)],
    ]
    for (const said of bad) {
      const session = await scripted(ready, ...said, done)
      await expect(gather(session.read(paths)), said.map((bytes) => bytes.toString('hex')).join()).rejects.toMatchObject(broke)
    }
  })

  it('is over when a loop over its answers is left early', async () => {
    const session = await scripted(ready, frame(tell.entries, root), frame(tell.entries, entry('a')), done)
    for await (const _ of session.walk()) break
    await expect(collect(session.walk())).rejects.toThrow('was closed')
  })

  it('ends a call that is under way when it is closed', async () => {
    const [ours, theirs] = duplexPair()
    theirs.resume()
    theirs.write(ready)
    const session = await StreamLayerSession.open(ours, '')
    const walk = expect(collect(session.walk())).rejects.toThrow('was closed')
    session.close()
    await walk
    theirs.destroy()
  })

  it('does not send what nobody takes', async () => {
    const [ours, theirs] = duplexPair({ highWaterMark: 64 << 10 })
    theirs.write(ready)
    const session = await StreamLayerSession.open(ours, '')
    let produced = 0
    async function* tree(): AsyncGenerator<LayerWrite> {
      for (;;) {
        yield { kind: 'data', offset: produced, bytes: Buffer.alloc(64 << 10) }
        produced += 64 << 10
      }
    }
    const writing = session.write(tree()).catch((error: Error) => error.message)
    for (let turn = 0; turn < 100; turn++) await new Promise((resolve) => setImmediate(resolve))
    expect(produced).toBeLessThan(1 << 20)
    theirs.destroy()
    expect(await writing).toContain('the layer worker')
  })

  it('does not take what nobody wants', async () => {
    const [ours, theirs] = duplexPair({ highWaterMark: 64 << 10 })
    theirs.resume()
    theirs.write(ready)
    const session = await StreamLayerSession.open(ours, '')
    const contents = session.read([Buffer.from('a')])
    let sent = 0
    const data = frame(tell.data, Buffer.concat([u32(0), Buffer.alloc(64 << 10)]))
    const sending = (async () => {
      while (!theirs.destroyed && sent < 64 << 20) {
        sent += data.length
        if (!theirs.write(data)) await new Promise((resolve) => theirs.once('drain', resolve).once('close', resolve))
      }
    })()
    await contents.next()
    for (let turn = 0; turn < 100; turn++) await new Promise((resolve) => setImmediate(resolve))
    expect(sent).toBeLessThan(2 << 20)
    await contents.return(undefined)
    theirs.destroy()
    await sending
  })

  it('stops a write as soon as the worker says why', async () => {
    const [ours, theirs] = duplexPair()
    theirs.write(ready)
    const session = await StreamLayerSession.open(ours, '')
    theirs.once('data', () => {
      theirs.write(frame(tell.error, Buffer.concat([u32(28), span('write'), span('big')])))
      theirs.resume()
    })
    let stopped = false
    async function* endless(): AsyncGenerator<LayerWrite> {
      try {
        for (let offset = 0; ; offset += 1024) yield { kind: 'data', offset, bytes: Buffer.alloc(64 << 10) }
      } finally {
        stopped = true
      }
    }
    await expect(session.write(endless())).rejects.toMatchObject({ message: expect.stringContaining('"big": write: no space left'), details: { errno: 28 } })
    expect(stopped).toBe(true)
  })

  it('tells of a fault in the tree it is given', async () => {
    const session = await scripted(ready)
    async function* broken(): AsyncGenerator<LayerWrite> {
      yield { kind: 'data', offset: 0, bytes: Buffer.from('x') }
      throw new Error('the store is gone')
    }
    await expect(session.write(broken())).rejects.toThrow('the store is gone')
  })
})

/** A small generator with a seed, so that a failure can be run again. */
function random(seed: number): (below: number) => number {
  let state = seed
  return (below) => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0
    return Math.floor((state / 0x1_0000_0000) * below)
  }
}

describe('a hostile worker', () => {
  const recorded = Buffer.concat([
    ready,
    frame(
      tell.entries,
      Buffer.concat([
        root,
        entry('a', { kind: 'directory', attributes: [['trusted.overlay.opaque', 'y']] }),
        entry('a/b', {
          attributes: [
            ['user.a', '1'],
            ['user.b', '22'],
          ],
        }),
        entry('a/c/'.slice(0, 3), { kind: 'symlink', target: '../b' }),
      ]),
    ),
    frame(tell.entries, Buffer.concat([entry('b', { kind: 'whiteout', mode: 0 }), entry('c', { kind: 'directory' }), entry('c/d')])),
    done,
    frame(tell.changed, Buffer.concat([Buffer.from([1]), entry('a/b'), Buffer.from([2]), span('c'), Buffer.from([2]), span('c/d')])),
    done,
    frame(tell.data, Buffer.concat([u32(0), Buffer.from('hello')])),
    frame(tell.hole, Buffer.concat([u32(0), u64(70_000)])),
    frame(tell.end, Buffer.concat([u32(0), endStamp])),
    frame(tell.missing, u32(1)),
    done,
  ])

  function mutated(next: (below: number) => number): Buffer {
    const bytes = Buffer.from(recorded)
    for (let count = 1 + next(4); count > 0; count--) {
      const at = next(bytes.length)
      const how = next(4)
      if (how === 0) bytes[at] = next(256)
      else if (how === 1) bytes[at] = (bytes[at] as number) ^ (1 << next(8))
      else if (how === 2) bytes.copy(bytes, at, next(bytes.length), bytes.length)
      else bytes.fill('./\0\xff'[next(4)] as string, at, Math.min(bytes.length, at + 1 + next(3)), 'latin1')
    }
    return bytes.subarray(0, next(4) === 0 ? next(bytes.length) : bytes.length)
  }

  /** In pieces of any size, then the end. */
  function replay(bytes: Buffer, next: (below: number) => number): Duplex {
    let at = 0
    return new Duplex({
      read() {
        const piece = 1 + next(200)
        this.push(at < bytes.length ? bytes.subarray(at, at + piece) : null)
        at += piece
      },
      write: (_bytes, _encoding, taken) => taken(),
    })
  }

  function checkEntry({ path, kind, mode, target, attributes }: LayerEntry) {
    expect(path.length === 0 ? kind === 'directory' : isLayerPath(path)).toBe(true)
    expect(mode).toBeLessThanOrEqual(0o7777)
    expect(kind === 'symlink').toBe(target !== undefined)
    for (const { name, value } of attributes) expect(isKeptAttribute(name, value)).toBe(true)
  }

  function checkChange(change: LayerChange): Buffer {
    if ('removed' in change) {
      expect(isLayerPath(change.removed)).toBe(true)
      return change.removed
    }
    checkEntry(change.present)
    return change.present.path
  }

  function inOrder(paths: readonly Buffer[]): boolean {
    return paths.every((path, at) => at === 0 || compareLayerPaths(paths[at - 1] as Buffer, path) < 0)
  }

  it('gets nothing past the checks, and cannot keep a session waiting', async () => {
    let whole = 0
    for (let seed = 1; seed <= 3000; seed++) {
      const next = random(seed)
      try {
        const session = await StreamLayerSession.open(replay(seed === 1 ? recorded : mutated(next), next), '')
        const entries = await collect(session.walk())
        entries.forEach(checkEntry)
        expect(inOrder(entries.map(({ path }) => path)), `seed ${seed}`).toBe(true)
        const changed = (await collect(session.changes())).map(checkChange)
        expect(inOrder(changed), `seed ${seed}`).toBe(true)
        const contents = await gather(session.read([Buffer.from('a'), Buffer.from('b')]))
        expect(contents.every(({ index }) => index < 2)).toBe(true)
        whole++
        session.close()
      } catch (error) {
        expect((error as { code?: string }).code, `seed ${seed}: ${error}`).toMatch(/^(sandbox_failed|workspace_not_savable)$/)
      }
    }
    expect(whole).toBeGreaterThan(0)
  })

  it('is asked in the words of the protocol', async () => {
    const heard: Buffer[] = []
    const [ours, theirs] = duplexPair()
    const asked = Buffer.concat([frame(ask.open, Buffer.concat([u32(1), span('/x')])), frame(ask.walk)])
    theirs.on('data', (bytes: Buffer) => {
      heard.push(bytes)
      if (Buffer.concat(heard).equals(asked)) theirs.write(Buffer.concat(walked.slice(1)))
    })
    theirs.write(ready)
    const session = await StreamLayerSession.open(ours, '/x')
    await collect(session.walk())
    session.close()
  })
})
