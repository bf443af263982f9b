import { execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'
import { setImmediate as turn } from 'node:timers/promises'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { type ArchiveRunner, packFolder, unpackFolder } from './archive.ts'

/** Runs programs on this machine. */
const local: ArchiveRunner = {
  async exec({ command, stdin = new Uint8Array() }, onOutput, abort) {
    const [file = '', ...args] = command
    const child = spawn(file, args)
    abort.addEventListener('abort', () => child.kill('SIGKILL'))
    const closed = once(child, 'close')
    child.stdin.on('error', () => undefined)
    const pump = async (source: 'stdout' | 'stderr') => {
      for await (const bytes of child[source]) await onOutput(source, bytes as Buffer)
    }
    const feed = async () => {
      if (stdin instanceof Uint8Array) child.stdin.end(stdin)
      else {
        try {
          for await (const bytes of stdin) child.stdin.write(bytes)
        } catch (error) {
          child.kill('SIGKILL')
          throw error
        }
        child.stdin.end()
      }
    }
    await Promise.all([pump('stdout'), pump('stderr'), feed()])
    const [code] = (await closed) as [number | null]
    return { kind: 'exited', exitCode: code ?? 137, timedOut: false }
  },
}

describe('archives', () => {
  let top: string
  beforeEach(() => {
    top = mkdtempSync(join(tmpdir(), 'archive-'))
    mkdirSync(join(top, 'from/deep/empty'), { recursive: true })
    writeFileSync(join(top, 'from/deep/program'), 'x'.repeat(500_000), { mode: 0o755 })
    writeFileSync(join(top, 'from', `${'long'.repeat(60)}`), 'long')
    writeFileSync(join(top, 'from/--checkpoint-action=exec=sh'), 'odd')
    symlinkSync('/etc/passwd', join(top, 'from/link'))
  })
  afterEach(() => rmSync(top, { recursive: true, force: true }))

  it('carry a folder there and back', async () => {
    const target = join(top, '-to/be made')
    await unpackFolder(local, target, packFolder(local, join(top, 'from')), new AbortController().signal)
    expect(readdirSync(target).sort()).toEqual(readdirSync(join(top, 'from')).sort())
    expect(readFileSync(join(target, 'deep/program')).length).toBe(500_000)
    expect(statSync(join(target, 'deep/program')).mode & 0o777).toBe(0o755)
    expect(statSync(join(target, 'deep/empty')).isDirectory()).toBe(true)
  })

  it('have names relative to the folder and one header a file', async () => {
    const pieces = await Array.fromAsync(packFolder(local, join(top, 'from')))
    const listed = execFileSync('tar', ['-tf', '-'], { input: Buffer.concat(pieces as Buffer[]) }).toString()
    expect(listed.split('\n')).toContain('./deep/program')
    expect(listed).not.toContain(top)
  })

  it('fail when tar fails', async () => {
    await expect(text(packFolder(local, join(top, 'none')))).rejects.toMatchObject({ code: 'bad_request', message: expect.stringContaining('none') as string })
    const none = (async function* () {
      yield Buffer.from('this is no archive'.repeat(100))
    })()
    await expect(unpackFolder(local, join(top, 'to'), none, new AbortController().signal)).rejects.toMatchObject({ code: 'bad_request' })
    const broken = (async function* () {
      yield Buffer.alloc(512)
      throw new Error('the client went away')
    })()
    await expect(unpackFolder(local, join(top, 'to'), broken, new AbortController().signal)).rejects.toThrow('the client went away')
  })

  it('do not leave their folder', async () => {
    const evil = execFileSync('tar', ['-cf', '-', '-P', '--transform', 's,^,../../,', '-C', join(top, 'from'), 'deep/program'])
    const content = (async function* () {
      yield evil
    })()
    await unpackFolder(local, join(top, 'a/b/to'), content, new AbortController().signal).catch(() => undefined)
    expect(readdirSync(join(top, 'a'))).toEqual(['b'])
    expect(readdirSync(join(top, 'a/b'))).toEqual(['to'])
  })

  it('are not read ahead of who wants them, and end with him', async () => {
    let offered = 0
    const ended = Promise.withResolvers<void>()
    const run: ArchiveRunner = {
      async exec(_request, onOutput, abort) {
        while (!abort.aborted) {
          offered++
          await onOutput('stdout', Buffer.alloc(64 * 1024))
        }
        ended.resolve()
        return { kind: 'signalled', exitCode: 137, timedOut: false }
      },
    }
    const stream = packFolder(run, '/')
    for (let turns = 0; turns < 100; turns++) await turn()
    expect(offered).toBeLessThan(5)
    stream.destroy()
    await ended.promise
  })
})
