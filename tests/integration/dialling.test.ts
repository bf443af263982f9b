import { randomBytes } from 'node:crypto'
import { readdirSync, readFileSync, readlinkSync } from 'node:fs'
import type { Duplex } from 'node:stream'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { DialerClient } from '../../packages/host/src/dialer/dialer-client.ts'
import { digest, environment, transcript } from '../../packages/host/src/drivers/conformance-run.ts'
import type { Sandbox, SandboxDriver, SandboxShape } from '../../packages/host/src/drivers/driver.ts'
import { containerGround, defaultShape } from '../kit/container-ground.ts'
import { quickDialer } from '../kit/quick-dialer.ts'
import { canTest, notRoot } from '../kit/require.ts'
import { missingForVms, vmGround, vmShape } from '../kit/vm-ground.ts'

const fullPort = 7020

interface Ground extends AsyncDisposable {
  readonly driver: SandboxDriver
  readonly shape: SandboxShape
}

/** A perl program that says "ready" and then echoes each connection to its end, with the number of bytes behind it: one process for each. */
const server = (listen: string) =>
  `use Socket qw(:all); $| = 1; $SIG{CHLD} = "IGNORE"; ${listen}; print "ready\\n"; while (1) { accept(my $c, $s) or next; my $p = fork; if (!defined $p || $p) { close $c; next } my $n = 0; while (my $got = sysread($c, my $b, 65536)) { $n += $got; for (my $o = 0; $o < $got;) { $o += syswrite($c, $b, $got - $o, $o) // exit } } syswrite($c, "\\ntotal $n\\n"); exit }`
const listenOn = (address: string, port: number) =>
  `socket(my $s, PF_INET, SOCK_STREAM, 0) or die; setsockopt($s, SOL_SOCKET, SO_REUSEADDR, 1); bind($s, sockaddr_in(${port}, inet_aton("${address}"))) or die "$!"; listen($s, 512) or die`
const listenOn6 = (port: number) =>
  `socket(my $s, PF_INET6, SOCK_STREAM, 0) or die; setsockopt($s, IPPROTO_IPV6, IPV6_V6ONLY, pack("i", 1)); bind($s, pack_sockaddr_in6(${port}, inet_pton(AF_INET6, "::1"))) or die "$!"; listen($s, 512) or die`

/** Starts a perl program in the sandbox; resolves once it has said "ready". */
async function start(sandbox: Sandbox, program: string) {
  const { output, until } = transcript()
  const exec = sandbox.agent.exec({ argv: ['perl', '-e', program], env: environment }, output)
  exec.exit.catch(() => undefined)
  exec.eof.catch(() => undefined)
  exec.pid.catch(() => undefined)
  await until((seen) => seen.includes('ready'))
  return exec
}

async function echo(sandbox: Sandbox, port: number, sent: Buffer): Promise<Buffer> {
  const socket = await sandbox.connect(port)
  const received = socket.toArray()
  socket.end(sent)
  const answer = Buffer.concat(await received)
  const tail = `\ntotal ${sent.length}\n`
  expect(answer.subarray(-tail.length).toString()).toBe(tail)
  return answer.subarray(0, -tail.length)
}

const closed = (socket: Duplex) => new Promise<void>((resolve) => socket.once('close', () => resolve()))

/** Network namespaces that this process and what it has started are in or hold open. Others of this machine come and go. */
function heldNamespaces(): string[] {
  const held = new Set<string>()
  for (const pid of ownProcesses()) {
    try {
      held.add(readlinkSync(`/proc/${pid}/ns/net`))
      for (const fd of readdirSync(`/proc/${pid}/fd`)) {
        const target = readlinkSync(`/proc/${pid}/fd/${fd}`)
        if (target.startsWith('net:')) held.add(target)
      }
    } catch {
      // It ended meanwhile.
    }
  }
  return [...held].sort()
}

/** This process and all below it. */
function ownProcesses(): string[] {
  const parents = new Map<string, string>()
  for (const pid of readdirSync('/proc').filter((name) => /^\d+$/.test(name))) {
    try {
      // proc_pid_stat(5): field 4, counted behind the name, which may have spaces.
      parents.set(pid, readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ').at(-1)?.split(' ')[1] ?? '')
    } catch {
      // It ended meanwhile.
    }
  }
  const isOwn = (pid: string | undefined): boolean => pid !== undefined && (pid === `${process.pid}` || isOwn(parents.get(pid)))
  return [...parents.keys()].filter(isOwn)
}

function openSockets(pid: number): number {
  return readdirSync(`/proc/${pid}/fd`).filter((fd) => {
    try {
      return readlinkSync(`/proc/${pid}/fd/${fd}`).startsWith('socket:')
    } catch {
      return false
    }
  }).length
}

function describeDialling(name: string, open: () => Promise<Ground>, timeoutMs: number) {
  describe(`dialling into a ${name}`, { timeout: timeoutMs }, () => {
    let ground: Ground
    let box: Sandbox
    const attached = async () => {
      const sandbox = await ground.driver.create(ground.driver.warmShape(ground.shape))
      await sandbox.attach(ground.shape)
      return sandbox
    }

    beforeAll(async () => {
      ground = await open()
      box = await attached()
      await start(box, server(listenOn('0.0.0.0', 7000)))
    }, 4 * timeoutMs)
    afterAll(async () => {
      await box?.destroy()
      await ground?.[Symbol.asyncDispose]()
    }, timeoutMs)

    it('reaches a server on whatever address it listens', async () => {
      const own = box.network?.address ?? ''
      const listening = await Promise.all([
        start(box, server(listenOn('127.0.0.1', 7001))),
        start(box, server(listenOn(own, 7002))),
        start(box, server(listenOn6(7003))),
      ])
      for (const port of [7000, 7001, 7002, 7003]) expect((await echo(box, port, Buffer.from(`to ${port}`))).toString(), `port ${port}`).toBe(`to ${port}`)
      for (const exec of listening) exec.close()
    })

    it('says that nothing listens, and on which port', async () => {
      await expect(box.connect(7999)).rejects.toMatchObject({ code: 'not_listening', message: expect.stringContaining('port 7999') })
    })

    it('refuses what is no port', async () => {
      for (const port of [0, -1, 65_536, 1.5, Number.NaN]) await expect(box.connect(port)).rejects.toMatchObject({ code: 'bad_request' })
    })

    it('carries many bytes both ways, whole', async () => {
      const sent = randomBytes(24 << 20)
      expect(digest(await echo(box, 7000, sent))).toBe(digest(sent))
    })

    it('passes the end of one direction on and leaves the other open, both ways', async () => {
      const program = `use Socket qw(:all); $| = 1; ${listenOn('127.0.0.1', 7010)}; print "ready\\n"; accept(my $c, $s); syswrite($c, "all of mine"); shutdown($c, 1); my $t = ""; while (sysread($c, my $b, 100)) { $t .= $b } print "heard $t\\n"`
      const { output, until } = transcript()
      const exec = box.agent.exec({ argv: ['perl', '-e', program], env: environment }, output)
      await until((seen) => seen.includes('ready'))
      const socket = await box.connect(7010)
      expect(Buffer.concat(await socket.toArray()).toString()).toBe('all of mine')
      expect(socket.writable).toBe(true)
      socket.write('still ')
      socket.end('talking')
      await until((seen) => seen.includes('heard still talking\n'))
      exec.close()
    })

    it('makes two hundred connections at once and leaves none behind', async () => {
      const before = openSockets(process.pid)
      const answers = await Promise.all(Array.from({ length: 200 }, (_, number) => echo(box, 7000, Buffer.from(`number ${number}`))))
      expect(answers.map(String)).toEqual(Array.from({ length: 200 }, (_, number) => `number ${number}`))
      expect(openSockets(process.pid)).toBeLessThanOrEqual(before + 2)
    })

    it('waits for a server whose backlog is full only for its time, and others do not wait with it', async () => {
      const hostile = await attached()
      try {
        const program = `use Socket qw(:all); $| = 1; ${listenOn('0.0.0.0', fullPort).replace('listen($s, 512)', 'listen($s, 0)')}; print "ready\\n"; sleep 1000`
        await start(hostile, program)
        // The one that its backlog holds.
        await hostile.connect(fullPort)
        const attempts = Array.from({ length: 40 }, () =>
          hostile.connect(fullPort).then(
            (socket) => ({ socket }),
            (error: unknown) => ({ error }),
          ),
        )
        // Served while those wait.
        for (let round = 0; round < 5; round++) expect((await echo(box, 7000, Buffer.from('meanwhile'))).toString()).toBe('meanwhile')
        const outcomes = await Promise.all(attempts)
        const failed = outcomes.flatMap((outcome) => ('error' in outcome ? [outcome.error] : []))
        expect(failed.length).toBeGreaterThan(30)
        for (const error of failed) expect(error).toMatchObject({ code: 'sandbox_failed', message: expect.stringContaining(`port ${fullPort}`) })
      } finally {
        await hostile.destroy()
      }
    })

    it('a frozen sandbox answers once it goes on', async () => {
      const connected = await box.connect(7000)
      await box.freeze()
      connected.end('while frozen')
      let answered = false
      const answer = connected.toArray().then((parts) => {
        answered = true
        return Buffer.concat(parts).toString()
      })
      // The host goes on meanwhile.
      await new Promise((resolve) => setImmediate(resolve))
      expect(answered).toBe(false)
      await box.thaw()
      expect(await answer).toBe('while frozen\ntotal 12\n')
    })

    it('destroying the sandbox breaks its connections, gives up those being made, and refuses new ones; no namespace is held', async () => {
      const before = heldNamespaces()
      const doomed = await attached()
      await start(doomed, server(listenOn('0.0.0.0', 7000)))
      await start(
        doomed,
        `use Socket qw(:all); $| = 1; ${listenOn('0.0.0.0', fullPort).replace('listen($s, 512)', 'listen($s, 0)')}; print "ready\\n"; sleep 1000`,
      )
      const sockets = await Promise.all(Array.from({ length: 5 }, () => doomed.connect(7000)))
      const ends = sockets.map(closed)
      const stuck = Array.from({ length: 10 }, () =>
        doomed.connect(fullPort).then(
          (socket) => closed(socket),
          () => undefined,
        ),
      )
      await doomed.destroy()
      await Promise.all([...ends, ...stuck])
      for (const socket of sockets) expect(socket.destroyed).toBe(true)
      await expect(doomed.connect(7000)).rejects.toMatchObject({ code: 'sandbox_failed' })
      // A container's namespace is kept for the next container by a pin, which no process holds.
      expect(heldNamespaces().filter((each) => !before.includes(each))).toEqual([])
    })

    it('a server that breaks the connection at once harms nobody', async () => {
      const program = `use Socket qw(:all); $| = 1; ${listenOn('0.0.0.0', 7030)}; print "ready\\n"; while (1) { accept(my $c, $s) or next; setsockopt($c, SOL_SOCKET, SO_LINGER, pack("ii", 1, 0)); close $c }`
      const exec = await start(box, program)
      for (let round = 0; round < 50; round++) {
        const socket = await box.connect(7030).catch(() => undefined)
        if (socket !== undefined) {
          socket.resume()
          socket.end('x')
          if (!socket.closed) await closed(socket)
        }
      }
      exec.close()
      expect((await echo(box, 7000, Buffer.from('well'))).toString()).toBe('well')
    })
  })
}

/** Where a server accepts nothing. */
const lendDialer = (dialer: DialerClient) => quickDialer(dialer, { port: fullPort, timeoutMs: 3_000 })
const containers = async (): Promise<Ground> => {
  const ground = await containerGround({ lendDialer })
  const { driver } = await ground.open()
  return {
    driver,
    shape: defaultShape,
    [Symbol.asyncDispose]: async () => {
      await driver.close()
      await ground[Symbol.asyncDispose]()
    },
  }
}
const machines = async (): Promise<Ground> => {
  const ground = await vmGround({ lendDialer })
  return { driver: ground.driver, shape: vmShape, [Symbol.asyncDispose]: () => ground[Symbol.asyncDispose]() }
}

if (canTest('MAGS_REQUIRE_CONTAINER', notRoot)) describeDialling('container', containers, 60_000)
if (canTest('MAGS_REQUIRE_VM', missingForVms())) describeDialling('virtual machine', machines, 120_000)
