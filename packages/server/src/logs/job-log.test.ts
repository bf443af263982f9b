import { execFileSync, spawnSync } from 'node:child_process'
import { appendFileSync, mkdirSync, mkdtempSync, readFileSync, rmSync, statSync, truncateSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import process from 'node:process'
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import { beginning } from './cursor.ts'
import { JobLog } from './job-log.ts'
import { logFile, summarizeLog } from './log-file.ts'
import { readRows } from './read-rows.ts'

let directory = ''
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'mags-log-'))
})
afterEach(() => {
  vi.useRealTimers()
  rmSync(directory, { recursive: true, force: true })
})

const path = () => join(directory, 'aa', 'job.log')
const make = (maxBytes = 1024 * 1024) => new JobLog({ path: path(), maxBytes, clock: () => 0 })
const chunk = (offset: number, text: string, source: 'stdout' | 'stderr' = 'stdout') => ({ source, offset, bytes: Buffer.from(text) })
const rowsOf = async (log = logFile(path())) =>
  (await readRows(log, { from: beginning, limit: 1000, maxBytes: 1e9 })).rows.map(({ row }) => `${row.message}${row.partial ? '…' : ''}`)

describe('JobLog', () => {
  it('acknowledges the beginning of a line at once, and joins it with its end', async () => {
    // On a busy machine its end would come later than a line is waited for.
    vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] })
    const log = make()
    await log.sink(chunk(0, 'one\ntw'))
    expect(log.safeOffsets()).toEqual({ stdout: 6, stderr: 0 })
    expect(await rowsOf(log)).toEqual(['one'])
    await log.sink(chunk(0, 'other stream', 'stderr'))
    await log.sink(chunk(6, 'o\nthree\n'))
    expect(await rowsOf(log)).toEqual(['one', 'two', 'three'])
    await log.end({ status: 'completed', exitCode: 0 })
    expect(await rowsOf()).toEqual(['one', 'two', 'three', 'other stream…'])
  })

  it('has on disk what it acknowledged, also the beginning of a line', async () => {
    const log = make()
    await log.sink(chunk(0, 'one\ntw'))
    await log.sink(chunk(0, 'err', 'stderr'))
    // As after kill -9: another process opens the file as it is.
    const copy = join(directory, 'copy.log')
    writeFileSync(copy, readFileSync(path()))
    expect(await summarizeLog(copy)).toMatchObject({ stdout: 6, stderr: 3, size: statSync(copy).size })
    await log.close()
  })

  it('begins the streams anew when the job is tried again, also for the next process', async () => {
    const log = make()
    const sink = log.sink
    await sink(chunk(0, 'one\nunfinished'))
    await log.beginAnew('tried again')
    expect(await sink(chunk(14, 'late\n'))).toBe('discard')
    expect(log.safeOffsets()).toEqual({ stdout: 0, stderr: 0 })
    let outputs = 0
    log.onFirstOutput(() => outputs++)
    // As after kill -9 before there was any output of this try.
    const copy = join(directory, 'copy.log')
    writeFileSync(copy, readFileSync(path()))
    expect(await summarizeLog(copy)).toMatchObject({ stdout: 0, stderr: 0, size: statSync(copy).size })
    await log.sink(chunk(0, 'one\n'))
    await log.sink(chunk(4, 'two\n'))
    expect(outputs).toBe(1)
    expect(log.safeOffsets()).toEqual({ stdout: 8, stderr: 0 })
    await log.close()
    expect(await rowsOf()).toEqual(['one', 'unfinished…', 'tried again', 'one', 'two'])
    const second = make()
    await second.open()
    expect(second.safeOffsets()).toEqual({ stdout: 8, stderr: 0 })
    await second.close()
  })

  it('begins them anew in a log of a former process, too', async () => {
    const former = make()
    await former.sink(chunk(0, 'begun\n'))
    await former.close()
    const log = make()
    await log.beginAnew('the server stopped')
    await log.sink(chunk(0, 'begun\n'))
    await log.close()
    expect(await rowsOf()).toEqual(['begun', 'the server stopped', 'begun'])
  })

  it('cuts off what a crash left at the end, and goes on from there', async () => {
    const first = make()
    await first.sink(chunk(0, 'one\n'))
    await first.sink(chunk(4, 'two\n'))
    await first.close()
    truncateSync(path(), statSync(path()).size - 2)
    const second = make()
    await second.open()
    expect(second.safeOffsets()).toEqual({ stdout: 4, stderr: 0 })
    await second.sink(chunk(4, 'two\nthree\n'))
    expect(await rowsOf(second)).toEqual(['one', 'two', 'three'])
    await second.close()
  })

  it.each([1, 5, 28, 40])('survives %i bytes of garbage at the end', async (count) => {
    const first = make()
    await first.sink(chunk(0, 'one\n'))
    await first.close()
    appendFileSync(path(), Buffer.alloc(count, 0xa7))
    const second = make()
    await second.open()
    await second.sink(chunk(4, 'two\n'))
    expect(await rowsOf(second)).toEqual(['one', 'two'])
    await second.close()
  })

  it('skips what it has when it is sent again', async () => {
    const log = make()
    await log.sink(chunk(0, 'one\ntwo\n'))
    await log.sink(chunk(0, 'one\n'))
    await log.sink(chunk(4, 'two\nthree\n'))
    expect(await rowsOf(log)).toEqual(['one', 'two', 'three'])
    await log.close()
  })

  it('leaves output after a close to the next process', async () => {
    const log = make()
    await log.open()
    await log.close()
    const settled = await Promise.race([log.sink(chunk(0, 'late\n')).then(() => 'settled'), new Promise((resolve) => setImmediate(resolve, 'open'))])
    expect(settled).toBe('open')
  })

  it('keeps its limit across a restart without saying it twice', async () => {
    const first = make(300)
    expect(await first.sink(chunk(0, `${'x'.repeat(400)}\n`))).toBe('discard')
    await first.close()
    const second = make(300)
    await second.open()
    expect(await second.sink(chunk(401, 'more\n'))).toBe('discard')
    await second.close()
    expect((await rowsOf()).filter((row) => row.includes('limit'))).toHaveLength(1)
    expect(statSync(path()).size).toBeLessThan(450)
  })

  it('drops output and says why when the file cannot be written', async () => {
    writeFileSync(join(directory, 'aa'), 'a file where the folder should be')
    const log = make()
    expect(await log.sink(chunk(0, 'x\n'))).toBe('discard')
    expect(log.fault?.message).toContain('ENOTDIR')
    await log.end({ status: 'completed', exitCode: 0 })
  })

  it('writes what many chunks at once bring, in order', async () => {
    const log = make()
    const lines = Array.from({ length: 500 }, (_, index) => `${index}\n`)
    let offset = 0
    await Promise.all(
      lines.map((line) => {
        offset += line.length
        return log.sink(chunk(offset - line.length, line))
      }),
    )
    expect(await rowsOf(log)).toEqual(lines.map((line) => line.trimEnd()))
    await log.end({ status: 'completed', exitCode: 0 })
    expect(await rowsOf()).toHaveLength(500)
  })
})

/** Not so as another user, nor in most containers. */
const canMount = process.getuid?.() === 0 && spawnSync('unshare', ['--mount', 'true']).status === 0

describe('JobLog on a full disk', () => {
  const room = { firstWaitMs: 1, longestWaitMs: 2 }
  const disk = () => {
    let mount: string | undefined = join(directory, 'small')
    mkdirSync(mount)
    execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=64k', 'tmpfs', mount])
    const at = mount
    return {
      log: join(at, 'aa', 'job.log'),
      fill: () => {
        try {
          for (;;) appendFileSync(join(at, 'filler'), Buffer.alloc(4096))
        } catch {}
      },
      free: () => rmSync(join(at, 'filler'), { force: true }),
      [Symbol.dispose]: () => {
        if (mount !== undefined) execFileSync('umount', ['-l', mount])
        mount = undefined
      },
    }
  }

  it.runIf(canMount)('acknowledges nothing until there is room, and then goes on without a loss', async () => {
    using small = disk()
    const log = new JobLog({ path: small.log, maxBytes: 1 << 20, clock: () => 0, room })
    await log.sink(chunk(0, 'one\n'))
    small.fill()
    const text = `${'x'.repeat(20_000)}\n`
    let acknowledged = false
    const taken = log.sink(chunk(4, text)).then(() => {
      acknowledged = true
    })
    await log.sticking
    expect(log.stuck).toContain('disk with the server')
    // Who has something to say does not wait for it.
    await log.system('said meanwhile', 'info')
    expect(acknowledged).toBe(false)
    expect(log.safeOffsets().stdout).toBe(4)
    small.free()
    await taken
    expect(log.stuck).toBeUndefined()
    await log.end({ status: 'completed', exitCode: 0 })
    expect(log.fault).toBeUndefined()
    expect(await rowsOf(logFile(small.log))).toEqual(['one', text.trimEnd(), 'said meanwhile'])
  })

  it.runIf(canMount)('is made as soon as there is room', async () => {
    using small = disk()
    small.fill()
    const log = new JobLog({ path: small.log, maxBytes: 1 << 20, clock: () => 0, room })
    const taken = log.sink(chunk(0, 'one\n'))
    await log.sticking
    small.free()
    await taken
    await log.close()
    expect(await rowsOf(logFile(small.log))).toEqual(['one'])
  })

  it.runIf(canMount)('loses what cannot be written, and says so, when nobody waits any more; what a closing server leaves comes again', async () => {
    using small = disk()
    small.fill()
    const lost = new JobLog({ path: small.log, maxBytes: 1 << 20, clock: () => 0, room })
    const given = lost.sink(chunk(0, 'x\n'))
    await lost.sticking
    lost.giveUp()
    expect(await given).toBe('discard')
    expect(lost.fault?.message).toContain('ENOSPC')
    await lost.close()
    const left = new JobLog({ path: small.log, maxBytes: 1 << 20, clock: () => 0, room })
    let settled = false
    void left.sink(chunk(0, 'x\n')).then(() => {
      settled = true
    })
    await left.sticking
    await left.close()
    expect(settled).toBe(false)
  })
})
