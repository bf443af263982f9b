import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { ContentOrder, decodeChanges, decodeEntries, decodeError, decodeReady } from './decode-layer-frames.ts'
import * as encode from './encode-layer-frames.ts'
import { ask, frameHeaderBytes, tell } from './layer-frame-constants.ts'
import { TreeOrder } from './layer-path.ts'

/** Both implementations of docs/layer-protocol.md read the same vectors. */
const file = join(import.meta.dirname, '../../../../native/vectors/layer.txt')
const lines = readFileSync(file, 'utf8')
  .split('\n')
  .filter((line) => line !== '' && !line.startsWith('#'))
const vectors = new Map(lines.map((line) => line.split(' ') as [string, string]))

const name = Buffer.from('a/\xff', 'latin1')
const atNs = 1763795000123456789n
const owned = { mode: 0o4755, uid: 1000, gid: 65_535, sizeBytes: 4_294_967_301 }
const root = { path: Buffer.alloc(0), kind: 'directory', mode: 0o755, uid: 0, gid: 0, sizeBytes: 0, mtimeNs: -1n, attributes: [] } as const
const attributes = [
  { name: 'security.capability', value: Buffer.from([1, 0, 0, 2]) },
  { name: 'user.x', value: Buffer.alloc(0) },
]

const sent: Record<string, () => Buffer> = {
  'host.open': () => encode.encodeOpen('/disks/7'),
  'host.open-guest': () => encode.encodeOpen(''),
  'host.open-scope': () => encode.encodeOpen('', 'workspace'),
  'host.walk': () => encode.encodeBare(ask.walk),
  'host.changes': () => encode.encodeBare(ask.changes),
  'host.read': () => Buffer.concat([...encode.encodePaths([name, Buffer.from('b')])]),
  'host.read-end': () => encode.encodeBare(ask.readEnd),
  'host.write': () => encode.encodeBare(ask.write),
  'host.entry-root': () => encode.encodeEntry(root),
  'host.entry-file': () => encode.encodeEntry({ ...owned, path: name, kind: 'file', mtimeNs: atNs, attributes }),
  'host.entry-symlink': () => encode.encodeEntry({ ...root, path: Buffer.from('l'), kind: 'symlink', mode: 0o777, mtimeNs: 0n, target: Buffer.from('../a') }),
  'host.entry-hard-link': () => encode.encodeEntry({ ...owned, path: Buffer.from('b'), kind: 'file', mtimeNs: 0n, attributes: [], linkTo: name }),
  'host.data': () => Buffer.concat([encode.encodeDataHead(4_294_967_296, 5), Buffer.from('hello')]),
  'host.write-end': () => encode.encodeBare(ask.writeEnd),
}

const link = {
  path: Buffer.from([0xff]),
  kind: 'symlink',
  mode: 0o777,
  uid: 1000,
  gid: 4_294_967_294,
  stamp: { inode: 1_099_511_627_776n, sizeBytes: 4, mtimeNs: -1n, ctimeNs: 5n },
  links: 1,
  target: Buffer.from('../a'),
  attributes: [],
}
const rootEntry = {
  path: Buffer.alloc(0),
  kind: 'directory',
  mode: 0o755,
  uid: 0,
  gid: 0,
  stamp: { inode: 2n, sizeBytes: 4096, mtimeNs: 1n, ctimeNs: atNs },
  links: 2,
  attributes: [{ name: 'trusted.overlay.opaque', value: Buffer.from('y') }],
}

/** At file 3 or 4 of five. */
function contentsFrom(index: number): ContentOrder {
  const order = new ContentOrder(5)
  for (let at = 0; at < index; at++) order.missing(Buffer.from([at, 0, 0, 0]))
  return order
}

const received: Record<string, [type: number, decode: (payload: Buffer) => unknown, expected: unknown]> = {
  'worker.ready': [tell.ready, decodeReady, 1],
  'worker.entries': [tell.entries, (payload) => decodeEntries(payload, new TreeOrder()), [rootEntry, link]],
  'worker.changed': [tell.changed, (payload) => decodeChanges(payload, undefined).changes, [{ present: link }, { removed: Buffer.from('\xffb/c', 'latin1') }]],
  'worker.data': [tell.data, (payload) => contentsFrom(3).data(payload), { index: 3, kind: 'data', bytes: Buffer.from('hello') }],
  'worker.hole': [tell.hole, (payload) => contentsFrom(3).hole(payload), { index: 3, kind: 'hole', lengthBytes: 1_099_511_627_776 }],
  'worker.end': [
    tell.end,
    (payload) => contentsFrom(3).end(payload),
    { index: 3, kind: 'end', stamp: { inode: 12n, sizeBytes: 1_099_511_627_781, mtimeNs: atNs, ctimeNs: -1n } },
  ],
  'worker.missing': [tell.missing, (payload) => contentsFrom(4).missing(payload), { index: 4, kind: 'missing' }],
  'worker.done': [tell.done, (payload) => payload.length, 0],
  'worker.error': [tell.error, (payload) => decodeError(payload).details, { errno: 28, errno_name: 'ENOSPC', step: 'write', path: name.toString('utf8') }],
}

describe('layer protocol vectors', () => {
  it('are all known', () => {
    expect([...vectors.keys()].sort()).toEqual([...Object.keys(sent), ...Object.keys(received)].sort())
  })

  for (const [vector, make] of Object.entries(sent)) {
    it(`sends ${vector}`, () => expect(make().toString('hex')).toBe(vectors.get(vector)))
  }

  for (const [vector, [type, decode, expected]] of Object.entries(received)) {
    const frame = Buffer.from(vectors.get(vector) ?? '', 'hex')
    it(`reads ${vector}`, () => {
      expect([frame.readUInt32LE(0), frame[4]]).toEqual([frame.length - frameHeaderBytes, type])
      expect(decode(frame.subarray(frameHeaderBytes))).toEqual(expected)
    })
    if (type === tell.done || type === tell.data) continue
    it(`refuses ${vector} when it is cut short or too long`, () => {
      for (let cut = frameHeaderBytes + 1; cut < frame.length; cut++) {
        // A batch may end after its first entry.
        if (type === tell.entries && cut === frameHeaderBytes + 81) continue
        if (type === tell.changed && cut === frame.length - 7) continue
        expect(() => decode(frame.subarray(frameHeaderBytes, cut)), `${cut}`).toThrow('broke its protocol')
      }
      expect(() => decode(Buffer.concat([frame.subarray(frameHeaderBytes), Buffer.from([0])]))).toThrow('broke its protocol')
    })
  }
})
