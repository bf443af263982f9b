import { createHash, randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { mkdtemp, rm } from 'node:fs/promises'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest'
import type { AgentConnection, AgentExecRequest } from './connection.ts'
import { cannotTestAgent, nativeBuild, type RealAgent, startRealAgent } from './testing/real-agent.ts'

const environment = { PATH: '/usr/sbin:/usr/bin:/sbin:/bin', HOME: '/root' }

function sh(program: string, request: Partial<AgentExecRequest> = {}): AgentExecRequest {
  return { argv: ['/bin/sh', '-c', program], env: environment, ...request }
}

/** The binary of native/agent as an ordinary process, spoken to as in a container. */
describe.skipIf(cannotTestAgent('tests against the real agent'))('the real agent', () => {
  let folder: string
  let program: RealAgent
  let connection: AgentConnection

  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'agent-'))
    program = startRealAgent(nativeBuild, join(folder, 'a.sock'), [join(nativeBuild, 'agent'), 'container'])
    connection = await program.connect()
  })

  afterAll(async () => {
    connection?.close()
    await program?.[Symbol.asyncDispose]()
    if (folder) await rm(folder, { recursive: true, force: true })
  })

  afterEach(async () => {
    await connection.ping()
  })

  async function finish(request: AgentExecRequest) {
    let stdout = ''
    let stderr = ''
    const exec = connection.exec(request, (stream, _offset, bytes) => {
      if (stream === 'stdout') stdout += bytes.toString()
      else stderr += bytes.toString()
      return undefined
    })
    const exit = await exec.exit
    const eof = await exec.eof
    exec.close()
    return { exit, eof, stdout, stderr }
  }

  it('runs a program and tells how it ended', async () => {
    const { exit, eof, stdout, stderr } = await finish(sh('echo out; echo err >&2; pwd; exit 3', { cwd: '/usr' }))
    expect(exit).toMatchObject({ kind: 'exited', code: 3, message: '' })
    expect(exit.maxRssKb).toBeGreaterThan(0)
    expect(eof).toEqual({ droppedBytes: 0 })
    expect([stdout, stderr]).toEqual(['out\n/usr\n', 'err\n'])
  })

  it('says why a program did not start', async () => {
    const { exit } = await finish({ argv: ['/nonexistent'], env: environment })
    expect(exit).toMatchObject({ kind: 'not-started', code: 2 })
    expect(exit.message).toMatch(/no such file/i)
  })

  it('carries 20 MB in order past a slow reader', async () => {
    const hash = createHash('sha256')
    let size = 0
    const exec = connection.exec(sh('head -c 20000000 /dev/zero | tr "\\0" x'), async (_stream, offset, bytes) => {
      expect(offset).toBe(size)
      size += bytes.length
      hash.update(bytes)
      await new Promise((resolve) => setImmediate(resolve))
      return undefined
    })
    expect((await exec.exit).code).toBe(0)
    exec.close()
    expect(size).toBe(20_000_000)
    expect(hash.digest('hex')).toBe(createHash('sha256').update(Buffer.alloc(20_000_000, 'x')).digest('hex'))
  })

  it('carries 5 MB through standard input', async () => {
    const input = randomBytes(5_000_000)
    let said = ''
    const exec = connection.exec(sh('sha256sum', { stdin: true }), (_stream, _offset, bytes) => {
      said += bytes.toString()
      return undefined
    })
    await exec.writeStdin(input)
    exec.endStdin()
    expect((await exec.exit).code).toBe(0)
    exec.close()
    expect(said.split(' ')[0]).toBe(createHash('sha256').update(input).digest('hex'))
  })

  it('does not hang on standard input that nobody reads', async () => {
    const exec = connection.exec(sh('exec <&-; exec sleep 1000', { stdin: true }), () => undefined)
    await exec.writeStdin(Buffer.alloc(2_000_000))
    exec.signal(9)
    expect(await exec.exit).toMatchObject({ kind: 'signalled', code: 9 })
    exec.close()
  })

  it('gives a terminal', async () => {
    let screen = ''
    const exec = connection.exec(
      { argv: ['/bin/sh', '-c', 'tty; stty size; read line; echo "got $line"; stty size'], env: environment, pty: { rows: 24, cols: 80 }, stdin: true },
      (_stream, _offset, bytes) => {
        screen += bytes.toString()
        return undefined
      },
    )
    await exec.pid
    exec.resize(50, 132)
    await exec.writeStdin(Buffer.from('word\n'))
    expect((await exec.exit).code).toBe(0)
    await exec.eof
    exec.close()
    expect(screen).toContain('/dev/pts/')
    expect(screen).toContain('got word')
    expect(screen).toContain('50 132')
  })

  it('drops on request, and counts', async () => {
    let taken = 0
    const exec = connection.exec(sh('head -c 5000000 /dev/zero'), async (_stream, _offset, bytes) => {
      taken += bytes.length
      return 'discard' as const
    })
    expect((await exec.exit).code).toBe(0)
    const { droppedBytes } = await exec.eof
    exec.close()
    expect(taken + droppedBytes).toBeLessThanOrEqual(5_000_000)
    expect(droppedBytes).toBeGreaterThan(4_000_000)
  })

  it('runs a script, and many programs at once', async () => {
    const { stdout } = await finish({ argv: ['/bin/sh'], env: environment, script: 'echo scripted\n' })
    expect(stdout).toBe('scripted\n')
    const many = await Promise.all(Array.from({ length: 100 }, (_, index) => finish(sh(`echo ${index}; exit ${index}`))))
    expect(many.map(({ exit, stdout: text }) => `${exit.code} ${text}`)).toEqual(many.map((_, index) => `${index} ${index}\n`))
  })

  it('tells its statistics', async () => {
    expect((await connection.stats()).processes).toBeGreaterThan(0)
  })

  it('dials', async () => {
    const server = createServer({ allowHalfOpen: true }, (peer) => peer.pipe(peer)).listen(0, '127.0.0.1')
    await once(server, 'listening')
    try {
      const { port } = server.address() as { port: number }
      const peer = await connection.dial(port)
      const sent = randomBytes(2_000_000)
      const received = peer.toArray()
      peer.end(sent)
      expect(Buffer.concat(await received).equals(sent)).toBe(true)
    } finally {
      server.close()
      await once(server, 'close')
    }
    await expect(connection.dial(1)).rejects.toThrow(/refused/i)
  })

  it('goes on exactly once after a connection was dropped in the middle', async () => {
    let stored = ''
    const second = Promise.withResolvers<void>()
    const exec = connection.exec(
      sh('i=0; while [ $i -lt 20000 ]; do i=$((i+1)); echo $i; done; exit 4', { windowBytes: 16_384 }),
      async (_stream, offset, bytes) => {
        if (offset > 0) {
          second.resolve()
          return new Promise<never>(() => undefined)
        }
        stored += bytes.toString()
        return undefined
      },
    )
    const lost = expect(exec.exit).rejects.toThrow('was closed')
    await second.promise
    connection.close()
    await lost
    connection = await program.connect()
    expect(connection.liveChannels).toMatchObject([{ channel: exec.channel, kind: 'exec' }])
    const resumed = connection.resumeExec(exec.channel, { stdout: stored.length, stderr: 0 }, (_stream, offset, bytes) => {
      expect(offset).toBe(stored.length)
      stored += bytes.toString()
      return undefined
    })
    expect((await resumed.exit).code).toBe(4)
    expect(await resumed.eof).toEqual({ droppedBytes: 0 })
    resumed.close()
    expect(stored).toBe(Array.from({ length: 20_000 }, (_, index) => `${index + 1}\n`).join(''))
  })
})
