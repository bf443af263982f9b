import { type ChildProcess, spawn } from 'node:child_process'
import { existsSync, readdirSync } from 'node:fs'
import { mkdtemp, rm } from 'node:fs/promises'
import { constants, tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { identifyProcess, type ProcessIdentity } from '../recover/process-identity.ts'
import { DialerClient } from './dialer-client.ts'

/** The real dialer with a server in a network namespace of its own. */
const build = process.env.MAGS_NATIVE_BUILD ?? join(import.meta.dirname, '../../../../native/build')
const binary = join(build, 'mounter')
const missing = [...(existsSync(binary) ? [] : ['native/build/mounter (build native/ first)']), ...(process.getuid?.() === 0 ? [] : ['root'])]
if (missing.length > 0) process.stderr.write(`skipped: dialling needs ${missing.join(' and ')}\n`)

const echoServer =
  '$| = 1; my $s = IO::Socket::INET->new(Listen => 512, LocalAddr => "127.0.0.1", LocalPort => 7007) or die "$!"; print "ready\n"; while (my $c = $s->accept) { while (sysread($c, my $b, 65536)) { syswrite($c, $b) } syswrite($c, " and out"); close $c }'

describe.skipIf(missing.length > 0)('DialerClient', () => {
  let dir: string
  let server: ChildProcess
  let there: ProcessIdentity
  beforeAll(async () => {
    dir = await mkdtemp(join(tmpdir(), 'mags-dialer-'))
    server = spawn('unshare', ['-n', 'sh', '-c', 'ip link set lo up; exec perl -MIO::Socket::INET -e "$0"', echoServer], {
      stdio: ['ignore', 'pipe', 'inherit'],
    })
    await new Promise((resolve) => server.stdout?.once('data', resolve))
    const identity = await identifyProcess(server.pid ?? 0)
    if (identity === undefined) throw new Error('the server ended')
    there = identity
  })
  afterAll(async () => {
    server?.kill('SIGKILL')
    await rm(dir, { recursive: true, force: true })
  })

  const open = async () => {
    const dialer = await DialerClient.start({ binary, logFile: join(dir, 'dialer.log') })
    return {
      dialer,
      dial: (port: number, process = there) => dialer.dial({ process, addresses: ['127.0.0.1', '::1'], port, timeoutMs: 5_000 }),
      [Symbol.asyncDispose]: () => dialer.close(),
    }
  }

  it('hands over a connection in which the end of one side is not that of the other', async () => {
    await using opened = await open()
    const socket = await opened.dial(7007)
    const received = socket.toArray()
    socket.end('in')
    expect(Buffer.concat(await received).toString()).toBe('in and out')
  })

  it('gives each of many the connection it asked for, and keeps none', async () => {
    await using opened = await open()
    const files = () => readdirSync(`/proc/${opened.dialer.pid}/fd`).length
    const before = files()
    const results = await Promise.all(
      Array.from({ length: 100 }, (_, number) =>
        opened.dial(number % 2 === 0 ? 7007 : 7008).then(
          (socket) => socket,
          (error: unknown) => error,
        ),
      ),
    )
    for (const [number, result] of results.entries()) {
      if (number % 2 === 0) (result as { destroy(): void }).destroy()
      else expect(result).toMatchObject({ name: 'DialError', errno: constants.errno.ECONNREFUSED })
    }
    // The last may still be on its way out.
    expect(files()).toBeLessThan(before + 10)
  })

  it('never dials in its own network, nor for a process that is another by now', async () => {
    await using opened = await open()
    const ourselves = await identifyProcess(process.pid)
    await expect(opened.dial(7007, ourselves)).rejects.toMatchObject({ errno: constants.errno.EPERM })
    await expect(opened.dial(7007, { ...there, startTicks: there.startTicks + 1 })).rejects.toMatchObject({ errno: constants.errno.ESRCH })
  })

  it('connections outlive it; calls reject once it has ended', async () => {
    const { dialer, dial } = await open()
    const socket = await dial(7007)
    await dialer.close()
    expect(dialer.ended).toBe(true)
    await expect(dial(7007)).rejects.toThrow('the dialer ended')
    const received = socket.toArray()
    socket.end('still')
    expect(Buffer.concat(await received).toString()).toBe('still and out')
    await dialer.close()
  })
})
