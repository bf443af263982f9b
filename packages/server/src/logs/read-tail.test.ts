import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, describe, expect, it } from 'vitest'
import type { LogBytes } from './cursor.ts'
import { JobLog } from './job-log.ts'
import { logFile } from './log-file.ts'
import { readTail } from './read-tail.ts'
import { encodeRecord, headerBytes } from './record.ts'

const directories: string[] = []
afterEach(() => {
  for (const directory of directories.splice(0)) rmSync(directory, { recursive: true })
})

function newPath(): string {
  const directory = mkdtempSync(join(tmpdir(), 'mags-tail-'))
  directories.push(directory)
  return join(directory, 'log')
}

/** A log of these blocks of output. */
function logOf(blocks: readonly Buffer[]): LogBytes {
  const parts = blocks.map((payload) => {
    const target = Buffer.alloc(headerBytes + payload.length)
    encodeRecord({ source: 'stdout', flags: 0, timeMs: 1, streamOffset: 0, payload }, target, 0)
    return target
  })
  const bytes = Buffer.concat(parts)
  return { size: () => bytes.length, read: async (position, length) => bytes.subarray(position, position + length) }
}

const output = ['stdout', 'stderr'] as const
const all = { lines: 1000, bytes: 256 * 1024, sources: output }

describe('the tail of a log', () => {
  it('has the output of both streams in order, also while the log is open', async () => {
    const path = newPath()
    const log = new JobLog({ path, maxBytes: 1024 * 1024, clock: () => 1 })
    expect(await readTail(logFile(path), all)).toEqual([])
    await log.sink({ source: 'stdout', offset: 0, bytes: Buffer.from('one\n\ntwo\n') })
    await log.system('about it', 'info')
    await log.sink({ source: 'stderr', offset: 0, bytes: Buffer.from('three') })
    await log.flush()
    const lines = ['one', '', 'two', 'three']
    expect(await readTail(log, all)).toEqual(lines)
    await log.end({ status: 'completed', exitCode: 0 })
    expect(await readTail(logFile(path), all)).toEqual(lines)
    expect(await readTail(logFile(path), { ...all, sources: ['system'] })).toEqual(['about it'])
  })

  it('is bounded in lines and bytes', async () => {
    const blocks = Array.from({ length: 5000 }, (_, index) => Buffer.from(`line ${index}\n`))
    expect(await readTail(logOf(blocks), { ...all, lines: 3 })).toEqual(['line 4997', 'line 4998', 'line 4999'])
    expect(await readTail(logOf(blocks), { ...all, bytes: 25 })).toEqual([' 4997', 'line 4998', 'line 4999'])
    const wide = await readTail(logOf([Buffer.alloc(200_000, 'a'), Buffer.alloc(200_000, 'b')]), all)
    expect(wide.map((line) => line.length)).toEqual([256 * 1024 - 200_001, 200_000])
  })

  it('finds its place in a log of any size, whatever the output looks like', async () => {
    const fake = Buffer.alloc(headerBytes + 4)
    encodeRecord({ source: 'stdout', flags: 0, timeMs: 1, streamOffset: 0, payload: Buffer.from('no!\n') }, fake, 0)
    // Each of them claims to reach far; none leads to the end.
    const headers = Buffer.alloc(200_000)
    for (let at = 0; at + headerBytes < headers.length; at += headerBytes) Buffer.from([0xa7, 0, 0, 1, 0, 0, 3, 0]).copy(headers, at)
    const noise = Buffer.concat([headers, Buffer.concat(Array.from({ length: 100 }, () => fake)), Buffer.from('\n')])
    const blocks = [...Array.from({ length: 8 }, () => noise), Buffer.from('last but one\n'), Buffer.from('last\n')]
    expect((await readTail(logOf(blocks), { ...all, bytes: 64 * 1024 })).slice(-2)).toEqual(['last but one', 'last'])
  })
})
