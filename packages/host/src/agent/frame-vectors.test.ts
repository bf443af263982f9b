import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import type { AgentFileEntry } from './connection.ts'
import { decodeAck, decodeEntry, decodeEof, decodeExit, decodeHello, decodeOpened, decodeReply, decodeStats } from './decode-frames.ts'
import * as encode from './encode-frames.ts'
import { uuidBytes, writeIdentity } from './encode-identity.ts'
import { marker, requestOp, sentPayloadLimit } from './frame-constants.ts'
import { FrameReader } from './frame-reader.ts'
import { PayloadReader } from './payload-reader.ts'

/** Both implementations of docs/agent-protocol.md read the same vectors. */
const file = join(import.meta.dirname, '../../../../native/vectors/frames.txt')
const vectors = new Map(
  (existsSync(file) ? readFileSync(file, 'utf8') : '')
    .split('\n')
    .filter((line) => line !== '' && !line.startsWith('#'))
    .map((line) => line.split(' ') as [string, string]),
)

const nonce = Buffer.from('000102030405060708090a0b0c0d0e0f', 'hex')
const infinity = Number.POSITIVE_INFINITY

const sent: Record<string, () => Buffer> = {
  'host.marker': () => marker,
  'host.hello': () => encode.encodeHello(nonce),
  'host.exec': () => encode.encodeExec(7, { argv: ['sh', '-c', 'echo hi'], env: { PATH: '/usr/bin:/bin', HOME: '/root' }, cwd: '/root', stdin: true }),
  'host.exec-pty-script': () =>
    encode.encodeExec(4_294_967_295, {
      argv: ['/bin/bash'],
      env: { TERM: 'xterm-256color', EMPTY: '' },
      windowBytes: 4096,
      pty: { rows: 24, cols: 80 },
      limits: [
        { resource: 7, soft: 1024, hard: 4096 },
        { resource: 6, soft: infinity, hard: infinity },
      ],
      script: Buffer.from('#!/bin/sh\necho \x00\xff\n', 'latin1'),
    }),
  'host.exec-init': () => encode.encodeExec(19, { argv: ['/sbin/init'], env: { container: 'mags' }, init: true, pty: { rows: 24, cols: 160 } }),
  'host.dial': () => encode.encodeDial(9, 8080, 65_536),
  'host.file-stat': () => encode.encodeFile(14, { op: 'stat', path: '/etc/hosts' }),
  'host.file-list': () => encode.encodeFile(15, { op: 'list', path: '/etc', most: 10_000 }),
  'host.file-write': () => encode.encodeFile(16, { op: 'write', path: '/a/b', mode: 0o640, windowBytes: 4096 }),
  'host.file-write-keep': () => encode.encodeFile(17, { op: 'write', path: '/a/b' }),
  'host.file-remove': () => encode.encodeFile(4_000_000_000, { op: 'remove', path: '/a', recursive: true }),
  'host.file-sftp': () => encode.encodeFile(18, { op: 'sftp', path: '/root' }),
  'host.file': () => encode.encodeFile(14, { op: 'read', path: '/data/é', offset: 1_099_511_627_776, most: 60_000 }),
  'host.data': () => Buffer.concat([encode.encodeDataHead(7, 4_294_967_296, 8), Buffer.from('68656c6c6f0a00ff', 'hex')]),
  'host.data-empty': () => encode.encodeDataHead(7, 0, 0),
  'host.eof': () => encode.encodeEof(7, 4_294_967_304),
  'host.ack-stdout': () => encode.encodeAck(7, 1, 1_234_567_890_123),
  'host.ack-stderr': () => encode.encodeAck(7, 2, 3),
  'host.signal': () => encode.encodeSignal(7, 15),
  'host.signal-all': () => encode.encodeSignal(0, 9, true),
  'host.resize': () => encode.encodeResize(7, 50, 132),
  'host.discard': () => encode.encodeDiscard(7, 2),
  'host.close': () => encode.encodeClose(7),
  'host.ping': () => encode.encodeRequest(1, requestOp.ping, (w) => w.bytes(Buffer.from('ping'))),
  'host.identity': () =>
    encode.encodeRequest(2, requestOp.identity, (w) =>
      writeIdentity(w, {
        unixTimeNs: 1763795000123456789n,
        entropy: Buffer.from('a0a1a2a3', 'hex'),
        hostname: 'box-1',
        hosts: '127.0.0.1 localhost\n',
        resolvConf: 'nameserver 10.88.0.1\n',
        machineId: '0123456789abcdef0123456789abcdef\n',
        network: { mac: '02:fc:0a:58:00:05', address: '10.88.0.5', prefixLength: 16, gateway: '10.88.0.1', mtu: 1500 },
      }),
    ),
  'host.identity-network6': () =>
    encode.encodeRequest(9, requestOp.identity, (w) =>
      writeIdentity(w, { network6: { address: '2001:db8:77::9', gateway: 'fe80::1', gatewayMac: '02:4d:0a:d5:00:01' } }),
    ),
  'host.identity-nothing': () => encode.encodeRequest(3, requestOp.identity, (w) => writeIdentity(w, {})),
  'host.attach-scope': () =>
    encode.encodeRequest(4, requestOp.attach, (w) => w.string('ws').bytes(uuidBytes('f0f1f2f3-f4f5-f6f7-f8f9-fafbfcfdfeff')).string('workspace')),
  'host.attach': () => encode.encodeRequest(4, requestOp.attach, (w) => w.string('ws').bytes(uuidBytes('f0f1f2f3-f4f5-f6f7-f8f9-fafbfcfdfeff'))),
  'host.detach': () => encode.encodeRequest(5, requestOp.detach, () => undefined),
  'host.freeze': () => encode.encodeRequest(6, requestOp.freeze, () => undefined),
  'host.thaw': () => encode.encodeRequest(7, requestOp.thaw, () => undefined),
  'host.stats': () => encode.encodeRequest(8, requestOp.stats, () => undefined),
}

function reply<T>(decode: (result: ReturnType<typeof decodeReply>['result']) => T) {
  return (payload: Buffer) => {
    const { errno, result } = decodeReply(payload)
    expect(errno).toBe(0)
    const value = decode(result)
    result.end()
    return value
  }
}

function entries(bytes: Buffer): AgentFileEntry[] {
  const reader = new PayloadReader(bytes)
  const found: AgentFileEntry[] = []
  while (reader.left > 0) found.push(decodeEntry(reader))
  return found
}

const received: Record<string, [(payload: Buffer) => unknown, unknown]> = {
  'agent.hello-empty': [decodeHello, { version: 1, nonce, mode: 'container', channels: [], boots: false, takesIpv6: false }],
  'agent.hello': [
    decodeHello,
    {
      version: 1,
      nonce,
      mode: 'vm',
      channels: [
        {
          channel: 7,
          kind: 'exec',
          exited: true,
          pid: 42,
          received: 5,
          stdout: { sent: 100, acked: 90, eof: true },
          stderr: { sent: 4_294_967_297, acked: 4_294_967_296, eof: false },
        },
        {
          channel: 9,
          kind: 'dial',
          exited: false,
          pid: 0,
          received: 0,
          stdout: { sent: 1, acked: 0, eof: false },
          stderr: { sent: 0, acked: 0, eof: true },
        },
      ],
      boots: true,
      takesIpv6: true,
    },
  ],
  'agent.hello-files': [
    decodeHello,
    {
      version: 1,
      nonce,
      mode: 'container',
      channels: [
        {
          channel: 3,
          kind: 'file',
          exited: false,
          pid: 77,
          received: 5,
          stdout: { sent: 0, acked: 0, eof: false },
          stderr: { sent: 0, acked: 0, eof: true },
        },
      ],
      boots: false,
      takesIpv6: false,
    },
  ],
  'agent.opened': [decodeOpened, 42],
  'agent.opened-dial': [decodeOpened, 0],
  'agent.data-stdout': [(payload) => [payload.readBigUInt64LE(0), payload.subarray(8).toString()], [0n, 'hi\n']],
  'agent.data-stderr': [(payload) => [payload.readBigUInt64LE(0), payload.subarray(8).toString('hex')], [4_294_967_296n, 'ff']],
  'agent.data-file-stat': [(payload) => entries(payload.subarray(8)), [{ name: 'hosts', type: 'file', mode: 420, size: 221, mtimeNs: 1763795000123456789n }]],
  'agent.data-file-list': [
    (payload) => [payload[8], entries(payload.subarray(9))],
    [
      1,
      [
        { name: 'mtab', type: 'symlink', mode: 511, size: 19, mtimeNs: 0n },
        { name: 'ssl', type: 'directory', mode: 493, size: 4096, mtimeNs: -1n },
      ],
    ],
  ],
  'agent.eof': [decodeEof, { total: 3, dropped: 1_000_000 }],
  'agent.ack': [decodeAck, 4_294_967_304],
  'agent.exit': [decodeExit, { kind: 'exited', code: 3, userCpuMs: 1.5, systemCpuMs: 2.5, maxRssKb: 1824, message: '' }],
  'agent.exit-signalled': [decodeExit, { kind: 'signalled', code: 9, userCpuMs: 0, systemCpuMs: 0.001, maxRssKb: 4_294_967_296, message: '' }],
  'agent.exit-not-started': [
    decodeExit,
    { kind: 'not-started', code: 2, userCpuMs: 0, systemCpuMs: 0, maxRssKb: 0, message: 'nosuch: No such file or directory' },
  ],
  'agent.exit-rebooted': [decodeExit, { kind: 'rebooted', code: 1, userCpuMs: 1500, systemCpuMs: 2500, maxRssKb: 12_288, message: '' }],
  'agent.exit-powered-off': [decodeExit, { kind: 'powered-off', code: 2, userCpuMs: 1500, systemCpuMs: 2500, maxRssKb: 12_288, message: '' }],
  'agent.reply-ping': [reply((result) => result.rest().toString()), 'ping'],
  'agent.reply-error': [(payload) => decodeReply(payload).errno, 2],
  'agent.reply-stats': [
    reply(decodeStats),
    {
      memoryTotalBytes: 1_073_741_824,
      memoryAvailableBytes: 536_870_912,
      diskTotalBytes: 10_737_418_240,
      diskAvailableBytes: 9_663_676_416,
      processes: 12,
    },
  ],
}

describe('vectors of the agent protocol', () => {
  it('are read without the features that agents of earlier releases do not tell', () => {
    const frame = Buffer.from(vectors.get('agent.hello') ?? '', 'hex')
    const hello = decodeHello(frame.subarray(12, -4))
    expect(hello.channels).toHaveLength(2)
    expect(hello.boots).toBe(false)
    expect(hello.takesIpv6).toBe(false)
  })

  it('are all known here', () => {
    const known = [...Object.keys(sent), ...Object.keys(received), 'agent.marker']
    expect([...vectors.keys()].filter((name) => !known.includes(name))).toEqual([])
    expect(known.filter((name) => !vectors.has(name))).toEqual([])
  })

  it.each(Object.entries(sent))('%s is encoded', (name, make) => {
    expect(make().toString('hex')).toBe(vectors.get(name))
  })

  it.each(Object.entries(received))('%s is decoded', (name, [decode, expected]) => {
    const reader = new FrameReader(sentPayloadLimit)
    reader.push(Buffer.from(vectors.get(name) ?? '', 'hex'))
    expect(reader.next()).toBe(true)
    expect(decode(reader.payload)).toEqual(expected)
    expect(reader.next()).toBe(false)
  })
})
