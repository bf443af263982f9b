import { createHash, randomBytes } from 'node:crypto'
import { afterAll, beforeAll, describe, expect, it, type TestContext } from 'vitest'
import { describeEndConformance } from './conformance-end.ts'
import { describeForkConformance } from './conformance-fork.ts'
import { conformanceScript, conformancePrograms as programs } from './conformance-programs.ts'
import { describeRestartConformance } from './conformance-restart.ts'
import { digest, environment, filesOf, finish, sh, transcript } from './conformance-run.ts'
import type { ConformanceGroup, ConformanceOptions, ConformanceSetup } from './conformance-setup.ts'
import { describeSleepConformance } from './conformance-sleep.ts'
import { describeStartConformance } from './conformance-start.ts'
import type { Sandbox } from './driver.ts'
import { hostnameOf } from './sandbox-id.ts'

export type { ConformanceOptions, ConformanceSetup } from './conformance-setup.ts'

/**
 * What every driver promises, as tests. Two groups, each with a set-up of its own: the first shares one attached sandbox where that does no harm, the second plays
 * a restart of the daemon.
 */
export function describeDriverConformance(name: string, setUp: () => Promise<ConformanceSetup>, options: ConformanceOptions = {}) {
  const timeScale = options.timeScale ?? 1
  const timeoutMs = 30_000 * timeScale

  describe(`${name} driver`, { timeout: timeoutMs }, () => {
    let setup: ConformanceSetup
    let box: Sandbox
    let other: Sandbox

    const attached = async () => {
      const sandbox = await setup.driver.create(setup.driver.warmShape(setup.shape))
      await sandbox.attach(setup.shape)
      return sandbox
    }
    const needsKernel = (context: TestContext) => {
      if (!setup.real) context.skip('the driver has no kernel behind it')
    }

    beforeAll(async () => {
      setup = await setUp()
      ;[box, other] = await Promise.all([attached(), attached()])
    }, 120_000 * timeScale)

    afterAll(async () => {
      await Promise.all([box?.destroy(), other?.destroy()])
      await setup?.dispose()
    }, 60_000 * timeScale)

    it('gives each sandbox an id of its own', () => {
      expect(box.id).toMatch(/^[0-9a-f]{12}$/)
      expect(other.id).not.toBe(box.id)
      expect(box.isolation).toBe(setup.driver.isolation)
    })

    it('runs a program with its environment and directory, streams apart, and tells its exit code', async () => {
      const { exit, stdout, stderr } = await finish(box, sh(programs.streams, { env: { ...environment, GREETING: 'a "b"  $c' }, cwd: '/tmp' }))
      expect({ kind: exit.kind, code: exit.code, stdout, stderr }).toEqual({ kind: 'exited', code: 3, stdout: 'to out: a "b"  $c\n/tmp\n', stderr: 'to err\n' })
    })

    it('runs as root at home', async () => {
      expect((await finish(box, sh(programs.whoAmI))).stdout).toBe('0\n/root\n/root\n/root\n')
    })

    it('gives a program exactly the environment asked for', async (context) => {
      needsKernel(context)
      const { stdout } = await finish(box, { argv: ['/bin/sh', '-c', programs.environment], env: { ...environment, A: '1', B: 'two words', C: '' } })
      for (const line of ['A=1', 'B=two words', 'C=', 'HOME=/root']) expect(stdout.split('\n')).toContain(line)
      expect(stdout).not.toMatch(/MAGS|container=/)
    })

    it('runs a script handed over with the request', async () => {
      const request = { argv: ['/bin/sh'], script: conformanceScript, env: { ...environment, GREETING: 'hello' }, cwd: '/root' }
      const { exit, stdout } = await finish(box, request)
      expect([exit.kind, exit.code, stdout]).toEqual(['exited', 5, 'hello from a script\n'])
    })

    it('says in words why a program did not start', async () => {
      const exec = box.agent.exec({ argv: ['/nonexistent'], env: environment }, () => undefined)
      const exit = await exec.exit
      expect([exit.kind, exit.code]).toEqual(['not-started', 2])
      expect(exit.message).toMatch(/no such file/i)
      await expect(exec.pid).rejects.toThrow('did not start')
      exec.close()
    })

    it('tells the signal that ended a program', async () => {
      const { exit } = await finish(box, sh(programs.killItself))
      expect([exit.kind, exit.code]).toEqual(['signalled', 9])
    })

    it('passes a signal on to a program that handles it', async () => {
      const { output, until, text } = transcript()
      const exec = box.agent.exec(sh(programs.trapTerm), output)
      expect(await exec.pid).toBeGreaterThan(1)
      await until((seen) => seen.includes('ready'))
      exec.signal(15)
      const exit = await exec.exit
      expect([exit.kind, exit.code, text()]).toEqual(['exited', 7, 'ready\ngot\n'])
      exec.close()
    })

    it('passes standard input on, more than its window, to the end', async () => {
      const input = randomBytes(600_000)
      const { stdoutBytes } = await finish(box, sh(programs.cat), input)
      expect(digest(stdoutBytes)).toBe(digest(input))
    })

    it('gives an empty standard input when none is asked for', async () => {
      expect((await finish(box, sh(programs.noStdin))).stdout).toBe('done\n')
    })

    it('delivers 2 MiB in order to a reader slower than the program', async () => {
      const hash = createHash('sha256')
      let size = 0
      let said = ''
      const exec = box.agent.exec(sh(programs.manyBytes, { windowBytes: 64 << 10 }), async (stream, offset, bytes) => {
        await new Promise((resolve) => setImmediate(resolve))
        if (stream === 'stderr') said += bytes.toString()
        else {
          expect(offset).toBe(size)
          size += bytes.length
          hash.update(bytes)
        }
        return undefined
      })
      expect((await exec.exit).code).toBe(0)
      expect(await exec.eof).toEqual({ droppedBytes: 0 })
      exec.close()
      expect(size).toBe(2 << 20)
      expect(said.split(' ')[0]).toBe(hash.digest('hex'))
    })

    it('drops the rest of a stream on request and counts it', async () => {
      let taken = 0
      let said = ''
      const exec = box.agent.exec(sh(programs.discard), async (stream, _offset, bytes) => {
        if (stream === 'stderr') said += bytes.toString()
        else taken += bytes.length
        return stream === 'stdout' ? 'discard' : undefined
      })
      expect((await exec.exit).code).toBe(0)
      const { droppedBytes } = await exec.eof
      exec.close()
      expect(droppedBytes).toBeGreaterThan(0)
      expect(taken + droppedBytes).toBeLessThanOrEqual(3_000_000)
      expect(said).toBe('last\n')
    })

    it('writes, reads, lists and removes files', async () => {
      const files = filesOf(box)
      const bytes = randomBytes(200_000)
      await files.put('/root/conform/deep/file', bytes)
      expect(await files.stat('/root/conform/deep/file')).toMatchObject({ name: 'file', type: 'file', sizeBytes: 200_000 })
      expect(digest(await files.get('/root/conform/deep/file'))).toBe(digest(bytes))
      const tail = await files.get('/root/conform/deep/file', { offset: 199_990, lengthBytes: 100 })
      expect(tail.equals(bytes.subarray(199_990))).toBe(true)
      await files.put('/root/conform/other', 'x')
      const { entries, truncated } = await files.list('/root/conform', 10)
      expect([entries.map(({ name, type }) => `${name} ${type}`), truncated]).toEqual([['deep directory', 'other file'], false])
      expect(await files.list('/root/conform', 1)).toMatchObject({ entries: [{ name: 'deep' }], truncated: true })
      await expect(files.remove('/root/conform', { recursive: false })).rejects.toMatchObject({ code: 'bad_request' })
      await files.remove('/root/conform', { recursive: true })
      await expect(files.stat('/root/conform')).rejects.toMatchObject({ code: 'not_found' })
    })

    it('shows programs the files written', async (context) => {
      needsKernel(context)
      await filesOf(box).put('/tmp/seen', 'by cat')
      expect((await finish(box, { argv: ['cat', '/tmp/seen'], env: environment })).stdout).toBe('by cat')
    })

    it('gives its files by the rules inside, and is held up by none of them', async (context) => {
      needsKernel(context)
      const files = filesOf(box)
      const read = async (path: string) => (await files.get(path)).toString()
      const made =
        'mkdir /root/rules && cd /root/rules && ln -s /etc/hostname absolute && ln -s ../../../../../etc/hostname up && ln -s /root/rules/real link && mkfifo fifo'
      expect((await finish(box, sh(made))).stderr).toBe('')
      const hostname = `${hostnameOf(box.id)}\n`
      expect([await read('/root/rules/absolute'), await read('/root/rules/up')]).toEqual([hostname, hostname])
      await files.put('/root/rules/real', 'x')
      await files.put('/root/rules/link', 'through')
      await files.put('/root/rules/new/deep/file', 'deep')
      expect((await finish(box, sh('cat /root/rules/real /root/rules/new/deep/file; stat -c %U:%a /root/rules/new/deep/file'))).stdout).toBe(
        'throughdeeproot:644\n',
      )
      expect(await read('/proc/self/cmdline')).not.toBe('')
      await expect(read('/root/rules/fifo')).rejects.toMatchObject({ code: 'bad_request' })
      await expect(files.remove('/', { recursive: true })).rejects.toMatchObject({ code: 'bad_request' })
      const { entries } = await files.list('/root/rules', 3)
      expect(entries.map(({ name, type }) => `${name} ${type}`)).toEqual(['absolute symlink', 'fifo fifo', 'link symlink'])
      await files.remove('/root/rules', { recursive: true })
      await expect(files.stat('/root/rules')).rejects.toMatchObject({ code: 'not_found' })
    })

    it('keeps sandboxes apart: files, host name, identity', async () => {
      await filesOf(box).put('/root/mine', 'secret')
      await expect(filesOf(other).stat('/root/mine')).rejects.toMatchObject({ code: 'not_found' })
      expect((await finish(box, sh(programs.uname))).stdout).toBe(`${hostnameOf(box.id)}\n`)
      expect((await finish(other, sh(programs.uname))).stdout).toBe(`${hostnameOf(other.id)}\n`)
    })

    it('sets /etc/hosts and /etc/resolv.conf', async () => {
      const { stdout } = await finish(box, sh(programs.etcFiles))
      const [hosts = '', resolver = ''] = stdout.split('--\n')
      expect(hosts).toMatch(/^127\.0\.0\.1\s+localhost/m)
      expect(hosts).toContain(`\t${hostnameOf(box.id)}\n`)
      expect(resolver).toMatch(/^nameserver \d+\.\d+\.\d+\.\d+$/m)
    })

    it('gives two sandboxes random bytes and a machine-id of their own', async (context) => {
      needsKernel(context)
      const [one, two] = await Promise.all([finish(box, sh(programs.uniqueness)), finish(other, sh(programs.uniqueness))])
      const [linesOne, linesTwo] = [one.stdout.trim().split('\n'), two.stdout.trim().split('\n')]
      expect(linesOne).toHaveLength(3)
      expect(linesOne[2]).toMatch(/^[0-9a-f]{32}$/)
      for (const [index, line] of linesOne.entries()) expect(line).not.toBe(linesTwo[index])
    })

    it('tells the time', async (context) => {
      needsKernel(context)
      const before = Date.now() / 1000
      const told = Number((await finish(box, sh(programs.clock))).stdout)
      const after = Date.now() / 1000
      expect(told).toBeGreaterThan(before - 5)
      expect(told).toBeLessThan(after + 5)
    })

    it('tells its statistics', async () => {
      const stats = await box.agent.stats()
      expect(stats.memoryTotalBytes).toBeGreaterThan(16 << 20)
      expect(stats.memoryAvailableBytes).toBeLessThanOrEqual(stats.memoryTotalBytes)
      expect(stats.diskTotalBytes).toBeGreaterThan(0)
      expect(stats.processes).toBeGreaterThan(0)
    })

    it('freeze stops all progress, thaw lets it go on', async () => {
      const { output, until, text } = transcript()
      const exec = box.agent.exec(sh(programs.ticker), output)
      // The other sandbox's round trips are the clock; how many of them the ticker needs to move says how many show that it stands still.
      let trips = 0
      const clock = async (count: number) => {
        for (let i = 0; i < count; i++) await finish(other, sh(programs.hello))
        return text().length
      }
      await until((seen) => seen.length > 100)
      for (let moved = 0; moved < 3; moved++) {
        for (const before = text().length; text().length === before; trips++) await clock(1)
      }
      await box.freeze()
      const frozen = await clock(trips + 20)
      expect(await clock(trips + 20)).toBe(frozen)
      await box.thaw()
      await until((seen) => seen.length > frozen)
      exec.close()
      await box.agent.ping()
    })

    it('dials a server inside, both ways, with half-close', async () => {
      const { output, until } = transcript()
      const server = box.agent.exec(sh(programs.echoServer), output)
      await until((seen) => seen.includes('ready'))
      const socket = await box.agent.dial(7007)
      const sent = randomBytes(700_000)
      const received = socket.toArray()
      socket.end(sent)
      const answer = Buffer.concat(await received)
      const tail = Buffer.from('\ntotal 700000\n')
      expect(answer.subarray(-tail.length).toString()).toBe(tail.toString())
      expect(digest(answer.subarray(0, -tail.length))).toBe(digest(sent))
      server.close()
    })

    it('rejects a dial where nothing listens', async () => {
      await expect(box.agent.dial(7008)).rejects.toMatchObject({ code: 'not_listening', message: expect.stringMatching(/port 7008 .*refused/) })
    })

    it('connects to a server inside, both ways, with half-close', async () => {
      const { output, until } = transcript()
      const server = box.agent.exec(sh(programs.echoServer), output)
      await until((seen) => seen.includes('ready'))
      const socket = await box.connect(7007)
      const sent = randomBytes(700_000)
      const received = socket.toArray()
      socket.end(sent)
      const answer = Buffer.concat(await received)
      const tail = Buffer.from('\ntotal 700000\n')
      expect(answer.subarray(-tail.length).toString()).toBe(tail.toString())
      expect(digest(answer.subarray(0, -tail.length))).toBe(digest(sent))
      await expect(other.connect(7008)).rejects.toMatchObject({ code: 'not_listening', message: expect.stringContaining('port 7008') })
      // The server is another sandbox's.
      if (setup.real) await expect(other.connect(7007)).rejects.toMatchObject({ code: 'not_listening' })
      server.close()
    })

    it('a daemon left behind keeps its output open after the exit', async () => {
      const { output, until, text } = transcript()
      const exec = box.agent.exec(sh(programs.daemon), output)
      expect((await exec.exit).code).toBe(0)
      expect(text()).toBe('started\n')
      await finish(box, sh(programs.wakeDaemon))
      await until((seen) => seen.includes('daemon got word\n'))
      expect(await exec.eof).toEqual({ droppedBytes: 0 })
      exec.close()
    })
  })

  const describeGroup: Record<ConformanceGroup, typeof describeEndConformance> = {
    end: describeEndConformance,
    start: describeStartConformance,
    restart: describeRestartConformance,
    sleep: describeSleepConformance,
    fork: describeForkConformance,
  }
  const wanted = options.groups ?? (Object.keys(describeGroup) as ConformanceGroup[])
  for (const group of wanted) describeGroup[group](name, setUp, timeScale)
}
