import { execFileSync } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { chmod, mkdir, mkdtemp, readdir, readFile, rm, stat, symlink, truncate, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import type { AgentConnection, AgentExec, AgentOutput } from '../agent/connection.ts'
import { cannotTestAgent, nativeBuild, type RealAgent, startRealAgent } from '../agent/testing/real-agent.ts'
import { FakeDriver } from '../drivers/fake/fake-driver.ts'
import { placeFiles } from './place-files.ts'
import { AgentSandboxFiles } from './sandbox-files.ts'

async function* pieces(...parts: readonly (string | Uint8Array)[]) {
  for (const part of parts) yield Buffer.from(part as string)
}

async function joined(parts: AsyncIterable<Uint8Array>): Promise<Buffer> {
  return Buffer.concat(await Array.fromAsync(parts))
}

describe.skipIf(cannotTestAgent('files of a sandbox'))('files of a sandbox', () => {
  let folder: string
  let top: string
  let program: RealAgent
  let connection: AgentConnection
  let files: AgentSandboxFiles

  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'sandbox-files-'))
    program = startRealAgent(nativeBuild, join(folder, 'a.sock'), [join(nativeBuild, 'agent'), 'container'])
    connection = await program.connect()
    files = new AgentSandboxFiles(connection)
  })

  afterAll(async () => {
    connection?.close()
    await program?.[Symbol.asyncDispose]()
    if (folder) await rm(folder, { recursive: true, force: true })
  })

  beforeEach(async () => {
    top = await mkdtemp(join(folder, 't-'))
  })

  afterEach(async () => {
    await connection.ping()
  })

  it('writes with parents, keeps the mode of what is there, and reads back', async () => {
    const path = join(top, 'a/b/file')
    const bytes = randomBytes(3_000_000)
    await files.write(path, pieces('', bytes.subarray(0, 1_000_001), bytes.subarray(1_000_001)))
    expect((await readFile(path)).equals(bytes)).toBe(true)
    expect(await files.stat(path)).toMatchObject({ name: 'file', type: 'file', sizeBytes: 3_000_000, mode: 0o644 })
    expect((await joined(files.read(path))).equals(bytes)).toBe(true)
    await files.write(path, pieces('short'), { mode: 0o4751 })
    await files.write(path, pieces('other'))
    expect((await stat(path)).mode & 0o7777).toBe(0o4751)
    expect((await joined(files.read(path, { offset: 1, lengthBytes: 3 }))).toString()).toBe('the')
    expect((await joined(files.read(path, { offset: 99, lengthBytes: 3 }))).toString()).toBe('')
    expect(await readdir(join(top, 'a/b'))).toEqual(['file'])
  })

  it('reads no more than is wanted of a file that never ends', async () => {
    const path = join(top, 'sparse')
    await writeFile(path, '')
    await truncate(path, 2 ** 43)
    let total = 0
    for await (const piece of files.read(path)) {
      total += piece.length
      if (total > 2_000_000) break
    }
    expect(total).toBeLessThan(3_000_000)
  })

  it('writes through a link and lists links as they are', async () => {
    await writeFile(join(top, 'real'), 'x')
    await symlink('real', join(top, 'link'))
    await symlink('/nowhere', join(top, 'broken'))
    await files.write(join(top, 'link'), pieces('through'))
    expect(await readFile(join(top, 'real'), 'utf8')).toBe('through')
    expect(await files.stat(join(top, 'link'))).toMatchObject({ type: 'file' })
    await expect(files.stat(join(top, 'broken'))).rejects.toMatchObject({ code: 'not_found', message: expect.stringContaining(join(top, 'broken')) as string })
    const { entries, truncated } = await files.list(top, 100)
    expect(entries.map(({ name, type }) => `${name} ${type}`)).toEqual(['broken symlink', 'link symlink', 'real file'])
    expect(truncated).toBe(false)
  })

  it('lists the first names of many, and names that are not UTF-8', async () => {
    for (let i = 0; i < 200; i++) await writeFile(join(top, `f${String((i * 7) % 200).padStart(3, '0')}`), '')
    const { entries, truncated } = await files.list(top, 3)
    expect(entries.map(({ name }) => name)).toEqual(['f000', 'f001', 'f002'])
    expect(truncated).toBe(true)
    await writeFile(Buffer.concat([Buffer.from(`${top}/`), Buffer.from([0x61, 0xff])]), '')
    expect((await files.list(top, 10_000)).entries[0]?.name).toBe('a\ufffd')
    expect((await files.list(top, 1_000_000)).entries).toHaveLength(201)
  })

  it('is held up by a fifo in nothing else, and says what is no file', async () => {
    execFileSync('mkfifo', [join(top, 'fifo')])
    await expect(joined(files.read(join(top, 'fifo')))).rejects.toMatchObject({ code: 'bad_request' })
    await expect(files.write(join(top, 'fifo'), pieces('x'))).rejects.toMatchObject({ code: 'bad_request' })
    await expect(joined(files.read(top))).rejects.toMatchObject({ code: 'bad_request' })
    await expect(files.list(join(top, 'fifo'), 10)).rejects.toMatchObject({ code: 'bad_request' })
    await expect(files.stat('/a\0b')).rejects.toMatchObject({ code: 'bad_request' })
    await expect(files.write('/proc/none', pieces('x'))).rejects.toMatchObject({ details: { errno_name: 'ENOENT' } })
  })

  it('leaves what was there when the content fails in the middle', async () => {
    const path = join(top, 'file')
    await writeFile(path, 'before')
    async function* failing() {
      yield Buffer.alloc(300_000)
      throw new Error('the client went away')
    }
    await expect(files.write(path, failing())).rejects.toThrow('the client went away')
    // The process that takes it back ends before the agent has nothing left to run.
    while ((await readdir(top)).length > 1) await connection.ping()
    expect(await readFile(path, 'utf8')).toBe('before')
  })

  it('does not wait for content once the write has failed', async () => {
    const never = Promise.withResolvers<IteratorResult<Uint8Array>>()
    const content = { [Symbol.asyncIterator]: () => ({ next: () => never.promise }) }
    await expect(files.write(top, content)).rejects.toMatchObject({ details: { errno_name: 'EISDIR' } })
  })

  it('removes folders only when told to, and never the root', async () => {
    await mkdir(join(top, 'd/e'), { recursive: true })
    await writeFile(join(top, 'd/e/f'), '')
    await chmod(join(top, 'd/e'), 0)
    await expect(files.remove(join(top, 'd'), { recursive: false })).rejects.toMatchObject({ details: { errno_name: 'EISDIR' } })
    await files.remove(join(top, 'd'), { recursive: true })
    await expect(files.remove(join(top, 'd'), { recursive: true })).rejects.toMatchObject({ code: 'not_found' })
    for (const path of ['/', '//', '/.', '/tmp/..', '/tmp/../']) {
      await expect(files.remove(path, { recursive: true })).rejects.toMatchObject({ details: { errno_name: 'EINVAL' } })
    }
  })

  it('works on many at once', async () => {
    const paths = Array.from({ length: 60 }, (_, index) => join(top, `many/${index}`))
    await Promise.all(paths.map((path) => files.write(path, pieces(path))))
    expect(await Promise.all(paths.map(async (path) => (await joined(files.read(path))).toString()))).toEqual(paths)
  })

  it('places the files of a job, or tells which could not be', async () => {
    const file = (name: string, text: string) => ({ path: join(top, name), content: () => pieces(text) })
    await placeFiles(files, [file('a', 'A'), file('b', 'B'), file('c', ''), file('d', 'D'), file('e', 'E')])
    expect(await Promise.all(['a', 'b', 'c', 'd', 'e'].map((name) => readFile(join(top, name), 'utf8')))).toEqual(['A', 'B', '', 'D', 'E'])
    await expect(placeFiles(files, [file('f', 'F'), file('a/b', 'x')])).rejects.toThrow(join(top, 'a/b'))
  })
})

describe('files of a sandbox that lies', () => {
  /** An agent that says this for whatever it is asked. */
  function lying(bytes: Buffer, code = 0): AgentSandboxFiles {
    const file = (_request: unknown, output: AgentOutput) => {
      const exit = (async () => {
        await output('stdout', 0, bytes)
        return { kind: 'exited', code, userCpuMs: 0, systemCpuMs: 0, maxRssKb: 0, message: '' } as const
      })()
      return { exit, close: () => undefined, writeStdin: async () => undefined, endStdin: () => undefined } as unknown as AgentExec
    }
    return new AgentSandboxFiles({ file })
  }

  const entry = (name: string) => Buffer.concat([Buffer.from([name.length, 0, 0, 0]), Buffer.from(name), Buffer.from('f'), Buffer.alloc(20)])

  it.each([
    ['a name that is a path', Buffer.concat([Buffer.from([0]), entry('../x')])],
    ['more than was asked for', Buffer.concat([Buffer.from([0]), entry('a'), entry('b')])],
    ['what ends early', Buffer.from([0, 255, 255, 255, 255])],
    ['far too much', Buffer.alloc(100_000)],
  ])('refuses %s', async (_what, bytes) => {
    await expect(lying(bytes).list('/', 1)).rejects.toMatchObject({ code: 'sandbox_failed' })
  })

  it('refuses more of a file than was asked for', async () => {
    await expect(joined(lying(Buffer.alloc(11)).read('/f', { offset: 0, lengthBytes: 10 }))).rejects.toMatchObject({ code: 'sandbox_failed' })
  })

  it('takes any errno', async () => {
    await expect(lying(Buffer.alloc(0), 255).stat('/f')).rejects.toMatchObject({ code: 'sandbox_failed' })
    await expect(lying(Buffer.alloc(0), 28).stat('/f')).rejects.toMatchObject({ code: 'too_large' })
  })
})

describe('files of a fake sandbox', () => {
  it('behave alike', async () => {
    const driver = new FakeDriver()
    const sandbox = await driver.create({ image: 'debian-12', vcpus: 1, memoryMb: 512, diskGb: 2 })
    const files = new AgentSandboxFiles(sandbox.agent)
    await files.write('/root/a/b', pieces('some', ' text'))
    expect((await joined(files.read('/root/a/b'))).toString()).toBe('some text')
    expect(await files.list('/root/a', 5)).toMatchObject({ entries: [{ name: 'b', type: 'file', sizeBytes: 9, mode: 0o644 }], truncated: false })
    await files.remove('/root/a', { recursive: true })
    await expect(files.stat('/root/a/b')).rejects.toMatchObject({ code: 'not_found' })
    await sandbox.destroy()
    await expect(files.stat('/root')).rejects.toMatchObject({ code: 'sandbox_failed' })
  })
})
