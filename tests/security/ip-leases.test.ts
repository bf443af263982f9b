import { randomBytes } from 'node:crypto'
import { mkdtemp, rm } from 'node:fs/promises'
import { createServer } from 'node:net'
import { networkInterfaces, tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { openNetwork } from '@mags/host'
import type { HostApi, LeasedAddresses, RunningSandbox } from '@mags/protocol'
import { pino } from 'pino'
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest'
import { nftIn, probe, type Resident, runIn, startIn, startProbe } from '../kit/namespace-program.ts'
import { findNetworkLeaks } from '../kit/network-leaks.ts'
import { hostPublicAddress, outsideAddresses } from '../kit/outside-world.ts'
import { host6, openOutsideWorld6, outside6, private6 } from '../kit/outside-world6.ts'
import { canMakeSandboxes, openRealHost, runDirOf } from '../kit/real-host.ts'

type Network = Awaited<ReturnType<typeof openNetwork>>
type Slot = Awaited<ReturnType<Network['createContainerSlot']>>

const isRoot = process.getuid?.() === 0
const required = process.env.MAGS_REQUIRE_CONTAINER === '1'
if (!isRoot && !required) console.warn('tests of leased addresses skipped: they need root')

const newInstance = () => randomBytes(3).toString('hex')
const logger = pino({ level: 'silent' })
const refused = ['ECONNREFUSED', 'EHOSTUNREACH', 'ENETUNREACH', 'EACCES', 'timeout']

const addressPrefixes = ['11.77.0.8/29', '2001:db8:77::/64']
const leases = [
  { ipv4: '11.77.0.9', ipv6: '2001:db8:77::9' },
  { ipv4: '11.77.0.10', ipv6: '2001:db8:77::a' },
] as const
describe.skipIf(!isRoot && !required)('a sandbox with addresses of its own', () => {
  const instance = newInstance()
  const link = `mags${instance}`
  const held = new AsyncDisposableStack()
  const nameServer = `${outsideAddresses.public}#5300`
  let network: Network
  let outside: string
  let runDir: string
  let first: Slot
  let second: Slot
  let hostPort: number
  let atOutside: Resident

  beforeAll(async () => {
    const world = held.use(await openOutsideWorld6())
    outside = world.netnsPath
    runDir = await mkdtemp(join(tmpdir(), 'mags-net-'))
    held.defer(() => rm(runDir, { recursive: true }))
    const server = createServer((socket) => socket.end()).listen(0, '::')
    await new Promise((resolve) => server.once('listening', resolve))
    held.defer(() => new Promise<void>((resolve) => server.close(() => resolve())))
    hostPort = (server.address() as { port: number }).port
    atOutside = held.use(await startProbe(outside, 'listen', ['::', 80]))
    held.use(await startProbe(outside, 'answer', [outsideAddresses.public, 5300]))
    network = await openNetwork({ instance, runDir, logger, dnsServers: [nameServer], addressPrefixes })
    held.defer(() => network.close({ keep: false }))
    ;[first, second] = (await network.createContainerSlots([0, 1])) as [Slot, Slot]
    await network.lease(first, leases[0])
    await network.lease(second, leases[1])
  })
  afterAll(() => held.disposeAsync())

  const families = [
    { family: 'IPv4', own: leases[0].ipv4, other: leases[1].ipv4, free: '11.77.0.12', there: outsideAddresses.public as string },
    { family: 'IPv6', own: leases[0].ipv6, other: leases[1].ipv6, free: '2001:db8:77::c', there: outside6 },
  ]

  describe.each(families)('$family', ({ own, other, free, there }) => {
    it('is reached from outside on any port, and sees who it is', async () => {
      for (const port of [22, 8080]) {
        await using server = await startProbe(first.netnsPath, 'listen', ['::', port])
        expect(await probe(outside, 'connect', [own, port])).toBe('connected')
        await server.says(`from ${there}`)
      }
      expect(await probe(outside, 'connect', [own, 8081])).toBe('ECONNREFUSED')
      await using datagrams = await startProbe(first.netnsPath, 'receive', [own.includes(':') ? '::' : '0.0.0.0', 5000])
      await probe(outside, 'send', [own, 5000, '', 'hello'])
      await datagrams.says('hello')
    })

    it('is seen with it outside', async () => {
      expect(await probe(first.netnsPath, 'connect', [there, 80])).toBe('connected')
      await atOutside.says(`from ${own}`)
    })

    it('is reached from this machine', async () => {
      await using _ = await startProbe(first.netnsPath, 'listen', ['::', 8080])
      expect(await probe('host', 'connect', [own, 8080])).toBe('connected')
    })

    it('reaches no other sandbox by it, nor itself', async () => {
      await using _ = await startProbe(second.netnsPath, 'listen', ['::', 8080])
      await using server = await startProbe(first.netnsPath, 'listen', ['::', 8081])
      expect(await probe(outside, 'connect', [other, 8080])).toBe('connected')
      expect(refused).toContain(await probe(first.netnsPath, 'try', [other, 8080]))
      expect(refused).toContain(await probe(first.netnsPath, 'try', [free, 8080]))
      expect(server.lines).toEqual(['ready'])
    })

    it('cannot speak with the address of another one', async () => {
      const { netnsPath } = first
      const width = other.includes(':') ? 128 : 32
      await using server = await startProbe(outside, 'listen', ['::', 81])
      await runIn(netnsPath, 'ip', 'addr', 'add', `${other}/${width}`, 'dev', 'eth0', ...(width === 128 ? ['nodad'] : []))
      try {
        expect(refused).toContain(await probe(netnsPath, 'try', [there, 81, other]))
        expect(server.lines).toEqual(['ready'])
        // And what is sent there still comes to whom it belongs.
        await using mine = await startProbe(second.netnsPath, 'listen', ['::', 8080])
        expect(await probe(outside, 'connect', [other, 8080])).toBe('connected')
        await mine.says(`from ${there}`)
      } finally {
        await runIn(netnsPath, 'ip', 'addr', 'delete', `${other}/${width}`, 'dev', 'eth0')
      }
    })

    it('nobody answers for an address that is free', async () => {
      expect(refused).toContain(await probe(outside, 'try', [free, 8080]))
    })
  })

  it('no other sandbox hears what is sent to it: either wall alone', async () => {
    const { netnsPath } = second
    const { routerNetnsPath } = network
    // Ahead of where frames for others are dropped.
    await nftIn(netnsPath, 'add table netdev t\nadd chain netdev t c { type filter hook ingress device "eth0" priority 0; }\nadd rule netdev t c counter')
    const heard = async () => {
      await nftIn(netnsPath, 'flush chain netdev t c\nadd rule netdev t c counter')
      await Promise.all(Object.values(leases[0]).map((address) => probe(outside, 'try', [address, 8085])))
      return Number(/packets (\d+)/.exec(await runIn(netnsPath, 'nft', 'list', 'chain', 'netdev', 't', 'c'))?.[1])
    }
    const port = (flood: string) => runIn(routerNetnsPath, 'ip', 'link', 'set', 'v1', 'type', 'bridge_slave', 'flood', flood)
    const known = (verb: string) => runIn(routerNetnsPath, 'bridge', 'fdb', verb, first.mac, 'dev', 'v0', 'master', 'static')
    const rules = await runIn(routerNetnsPath, 'nft', '-s', 'list', 'table', 'bridge', 'mags')
    try {
      expect(await heard()).toBe(0)
      await nftIn(routerNetnsPath, 'flush chain bridge mags output\nadd rule bridge mags output accept')
      expect(await heard()).toBe(0)
      await known('del')
      await port('on')
      expect(await heard()).toBeGreaterThan(0)
      await nftIn(routerNetnsPath, `delete table bridge mags\n${rules}\n`)
      await runIn(routerNetnsPath, 'ip', 'link', 'set', 'v0', 'type', 'bridge_slave', 'flood', 'on')
      expect(await heard()).toBe(0)
      expect(await probe(outside, 'connect', [leases[0].ipv4, 8085])).toBe('ECONNREFUSED')
    } finally {
      await nftIn(routerNetnsPath, `delete table bridge mags\n${rules}\n`)
      await known('replace')
      await port('off')
      await runIn(routerNetnsPath, 'ip', 'link', 'set', 'v0', 'type', 'bridge_slave', 'flood', 'off')
      await nftIn(netnsPath, 'delete table netdev t')
    }
  })

  it('still reaches no private or metadata address, and no address of the host', async () => {
    const own = Object.entries(networkInterfaces()).flatMap(([name, all]) =>
      name === 'lo' ? [] : (all ?? []).filter(({ scopeid }) => scopeid === undefined || scopeid === 0).map(({ address }) => address),
    )
    expect(own).toContain(hostPublicAddress)
    expect(own).toContain(host6)
    const { public: _, ...inside } = outsideAddresses
    const places: (readonly [string, number])[] = [
      ...own.map((address) => [address, hostPort] as const),
      ...[...Object.values(inside), private6].map((address) => [address, 80] as const),
      ...['fe80::1', 'fe80::5:1'].map((address) => [`${address}%eth0`, hostPort] as const),
      [second.address, 80],
    ]
    const outcomes = await Promise.all(places.map(async (place) => [place, await probe(first.netnsPath, 'try', place)] as const))
    for (const [[address], outcome] of outcomes) expect(refused, address).toContain(outcome)
  })

  it('either wall refuses private IPv6 alone', async () => {
    const attempt = () => probe(first.netnsPath, 'connect', [private6, 80])
    const saved = await runIn(network.routerNetnsPath, 'nft', '-s', 'list', 'chain', 'inet', 'mags', 'outbound6')
    await runIn(network.routerNetnsPath, 'nft', 'insert', 'rule', 'inet', 'mags', 'outbound6', 'ct', 'state', 'new', 'goto', 'judge6')
    try {
      expect(refused).toContain(await attempt())
      await runIn('host', 'nft', 'insert', 'rule', 'inet', `mags_${instance}`, 'leave', 'accept')
      expect(await attempt()).toBe('connected')
    } finally {
      const handle = /insert|handle (\d+)/
      expect(saved).toMatch(/chain outbound6/)
      for (const [place, table, chain] of [
        [network.routerNetnsPath, 'mags', 'outbound6'],
        ['host', `mags_${instance}`, 'leave'],
      ] as const) {
        const listed = await runIn(place, 'nft', '-a', 'list', 'chain', 'inet', table, chain)
        const line = listed.split('\n').find((each) => /^\s*(ct state new goto judge6|accept) # handle/.test(each))
        const number = line === undefined ? undefined : handle.exec(line)?.[1]
        if (number !== undefined) await runIn(place, 'nft', 'delete', 'rule', 'inet', table, chain, 'handle', number)
      }
      expect(refused).toContain(await attempt())
    }
  })

  it('with a policy: connections from outside go on, new ones to the outside are judged by it', async () => {
    await using server = await startProbe(first.netnsPath, 'listen', ['::', 8080])
    await using talk4 = await startProbe(outside, 'talk', [leases[0].ipv4, 8080], 'connected')
    await using talk6 = await startProbe(outside, 'talk', [leases[0].ipv6, 8080], 'connected')
    await network.egress.set(network.useOf(first), 'none')
    for (const talk of [talk4, talk6]) {
      talk.tell('still here')
      await talk.says('still here')
    }
    expect(refused).toContain(await probe(first.netnsPath, 'try', [outsideAddresses.public, 80]))
    expect(refused).toContain(await probe(first.netnsPath, 'try', [outside6, 80]))
    await network.egress.set(network.useOf(first), { deny: ['192.0.2.0/24'] })
    expect(await probe(first.netnsPath, 'connect', [outsideAddresses.public, 80])).toBe('connected')
    expect(refused).toContain(await probe(first.netnsPath, 'try', [outside6, 80]))
    talk6.tell('and now')
    await talk6.says('and now')
    expect(server.lines.length).toBe(3)
  })

  it('counts what it sends by IPv6, too', async () => {
    const slot = await network.createContainerSlot(5)
    await network.lease(slot, { ipv6: '2001:db8:77::b' })
    const use = network.useOf(slot)
    const before = await network.egress.sentBytes(use)
    expect(await probe(slot.netnsPath, 'connect', [outside6, 80])).toBe('connected')
    expect(await network.egress.sentBytes(use)).toBeGreaterThan(before)
    await network.free(slot)
    expect(await runIn(network.routerNetnsPath, 'ip', '-6', 'route')).not.toContain('2001:db8:77::b')
  })

  it('moves: a sandbox that takes over an address has it alone', async () => {
    const [from, to] = (await network.createContainerSlots([6, 7])) as [Slot, Slot]
    const lease = { ipv4: '11.77.0.13', ipv6: '2001:db8:77::d' }
    await network.lease(from, lease)
    await network.lease(to, lease)
    await using _ = await startProbe(from.netnsPath, 'listen', ['::', 8080])
    for (const address of Object.values(lease)) expect(await probe(outside, 'connect', [address, 8080])).toBe('ECONNREFUSED')
    await using mine = await startProbe(to.netnsPath, 'listen', ['::', 8080])
    for (const address of Object.values(lease)) expect(await probe(outside, 'connect', [address, 8080])).toBe('connected')
    expect(mine.lines.length).toBe(3)
    await network.free(from)
    await network.free(to)
  })

  it('is over with the use of the slot: the next sandbox there has nothing of it, open connections are cut', async () => {
    const slot = await network.createContainerSlot(8)
    const lease = { ipv4: '11.77.0.14', ipv6: '2001:db8:77::e' }
    await network.lease(slot, lease)
    await using server = await startProbe(slot.netnsPath, 'listen', ['::', 8080])
    await using talk = await startProbe(outside, 'talk', [lease.ipv4, 8080], 'connected')
    await network.renew(slot)
    talk.tell('too late')
    const outcomes = await Promise.all(Object.values(lease).map((address) => probe(outside, 'try', [address, 8080])))
    for (const outcome of outcomes) expect(refused).toContain(outcome)
    expect(talk.lines).toEqual(['connected'])
    expect(server.lines.length).toBe(2)
    expect(await runIn(slot.netnsPath, 'ip', '-6', 'addr', 'show', 'dev', 'eth0')).not.toContain(lease.ipv6)
    await using _ = await startProbe(outside, 'listen', ['0.0.0.0', 82])
    expect(await probe(slot.netnsPath, 'connect', [outsideAddresses.public, 82])).toBe('connected')
    expect(refused).toContain(await probe(slot.netnsPath, 'try', [outside6, 80]))
    expect(await runIn('host', 'nft', 'list', 'set', 'inet', `mags_${instance}`, 'leased')).not.toContain(lease.ipv4)
  })

  it('leaves nothing of it in the router behind a virtual machine either', async () => {
    const slot = await network.createTapSlot(9)
    const lease = { ipv6: '2001:db8:77::f' }
    const known = async () => {
      const commands = [
        ['ip', '-6', 'route'],
        ['ip', '-6', 'neigh', 'show', 'nud', 'permanent'],
        ['nft', 'list', 'ruleset'],
      ]
      const lists = await Promise.all(commands.map((command) => runIn(network.routerNetnsPath, ...command)))
      return [...lists, await runIn('host', 'nft', 'list', 'set', 'inet', `mags_${instance}`, 'leased6')].map((list) => list.includes(lease.ipv6))
    }
    await network.lease(slot, lease)
    expect(await known()).toEqual([true, true, true, true])
    await network.renew(slot)
    expect(await known()).toEqual([false, false, false, false])
    await network.lease(slot, lease)
    await network.free(slot)
    expect(await known()).toEqual([false, false, false, false])
  })

  it('routes its prefixes on this machine, and nothing more', async () => {
    const routes = await runIn('host', 'ip', 'route', 'show', 'dev', link)
    expect(routes.split('\n').filter((line) => line.includes('via'))).toEqual([expect.stringContaining('11.77.0.8/29 via')])
    const routes6 = await runIn('host', 'ip', '-6', 'route', 'show', 'dev', link)
    expect(routes6.split('\n').filter((line) => line.includes('via'))).toEqual([expect.stringContaining('2001:db8:77::/64 via')])
  })

  it('refuses a prefix with an address of this machine, or that is routed elsewhere', async () => {
    const other = newInstance()
    const dir = await mkdtemp(join(tmpdir(), 'mags-net-'))
    const open = (...prefixes: string[]) => openNetwork({ instance: other, runDir: dir, logger, dnsServers: [nameServer], addressPrefixes: prefixes })
    await expect(open('11.22.33.0/30')).rejects.toThrow('MAGS_IP_PREFIXES: 11.22.33.0/30 holds 11.22.33.1, an address of this machine')
    await expect(open('10.213.7.0/24')).rejects.toThrow('MAGS_IP_PREFIXES: 10.213.7.0/24 holds 10.213.0.0/16')
    await expect(open('11.77.0.8/29')).rejects.toThrow('routes 11.77.0.8/29 elsewhere already')
    expect(await findNetworkLeaks(other, dir)).toEqual([])
    await rm(dir, { recursive: true })
  })

  describe('over a restart', () => {
    const prefix = ['11.78.0.8/29', '2001:db8:78::/64']
    const lease = { ipv4: '11.78.0.9', ipv6: '2001:db8:78::9' }

    it('killed: the sandbox that lives on keeps its addresses, also under other prefixes, until its end', async () => {
      const other = newInstance()
      const dir = await mkdtemp(join(tmpdir(), 'mags-net-'))
      const file = fileURLToPath(new URL('../kit/lease-daemon.ts', import.meta.url))
      const mounts = ['unshare', '--mount', '--propagation', 'private']
      const daemon = startIn('host', [
        ...mounts,
        process.execPath,
        '--conditions=source',
        file,
        other,
        dir,
        nameServer,
        prefix.join(','),
        JSON.stringify(lease),
      ])
      await daemon.says('ready')
      await vi.waitFor(() => expect(daemon.lines.length).toBe(2), 20_000)
      const sandboxPid = Number(daemon.lines[1])
      try {
        await daemon[Symbol.asyncDispose]()
        const place = `/proc/${sandboxPid}/ns/net`
        await using _ = await startProbe(place, 'listen', ['::', 8080])
        const reachable = async () => {
          for (const address of Object.values(lease)) expect(await probe(outside, 'connect', [address, 8080])).toBe('connected')
        }
        await reachable()
        const again = await openNetwork({ instance: other, runDir: dir, logger, dnsServers: [nameServer], addressPrefixes: ['11.79.0.8/29'] })
        try {
          const slot = await again.adoptContainerSlot(0, sandboxPid)
          await again.freeUnadopted()
          await reachable()
          await using seen = await startProbe(outside, 'listen', ['0.0.0.0', 83])
          expect(await probe(place, 'connect', [outsideAddresses.public, 83])).toBe('connected')
          await seen.says(`from ${lease.ipv4}`)
          const routes = async () => `${await runIn('host', 'ip', 'route', 'show')}\n${await runIn('host', 'ip', '-6', 'route', 'show')}`
          expect(await routes()).not.toContain('11.78.0.8/29')
          expect(await routes()).toContain('11.78.0.9 via')
          if (slot) await again.free(slot)
          expect(await routes()).not.toMatch(/11\.78\.0\.9|2001:db8:78::9/)
          expect(await routes()).toContain('11.79.0.8/29')
        } finally {
          await again.close({ keep: false })
        }
        expect(await findNetworkLeaks(other, dir)).toEqual([])
        expect(await runIn('host', 'ip', 'route', 'show')).not.toMatch(/11\.7[89]\./)
      } finally {
        process.kill(sandboxPid, 'SIGKILL')
        await rm(dir, { recursive: true })
      }
    })
  })
})

/** The agent puts its IPv6 address on its interface, and what is root inside can put others there. */
describe.skipIf(!canMakeSandboxes())('a virtual machine with addresses of its own', { timeout: 60_000 }, () => {
  const held = new AsyncDisposableStack()
  const instance = newInstance()
  const [own, other] = leases
  const free = '2001:db8:77::c'
  let outside: string
  let atOutside: Resident
  let machine: RunningSandbox
  let neighbour: RunningSandbox
  let unleased: RunningSandbox
  let hostPort: number
  let heard = ''

  beforeAll(async () => {
    outside = held.use(await openOutsideWorld6()).netnsPath
    const dataDir = await mkdtemp(join(tmpdir(), 'mags-leases-'))
    held.defer(() => rm(dataDir, { recursive: true, force: true }))
    held.defer(() => rm(runDirOf(instance), { recursive: true, force: true }))
    const server = createServer((socket) => socket.end()).listen(0, '::')
    await new Promise((resolve) => server.once('listening', resolve))
    held.defer(() => new Promise<void>((resolve) => server.close(() => resolve())))
    hostPort = (server.address() as { port: number }).port
    atOutside = held.use(await startProbe(outside, 'listen', ['::', 80]))
    const host = await openRealHost({ instance, dataDir, addressPrefixes })
    held.defer(() => host.close({ keepPersistent: false }))
    await host.settle()
    ;[machine, neighbour, unleased] = await Promise.all([
      start(host, own, (text) => {
        heard += text
      }),
      start(host, other),
      start(host, undefined),
    ])
  }, 180_000)
  afterAll(() => held.disposeAsync(), 60_000)

  /** It serves on all it has, and says who has come. */
  async function start(host: HostApi, addresses: LeasedAddresses | undefined, hear: (text: string) => void = () => undefined) {
    const script = `exec perl -MIO::Socket::IP -e '
my $s = IO::Socket::IP->new(LocalHost => "${addresses === undefined ? '0.0.0.0' : '::'}", LocalPort => 8080, Listen => 9, ReuseAddr => 1) or die $@;
$| = 1; print "ready\n";
while (my $c = $s->accept) { print "from ", $c->peerhost =~ s/^::ffff://r, "\n"; close $c }'`
    const shape = { image: 'debian-12', isolation: 'vm', vcpus: 1, memoryMb: 256, diskGb: 2, persistent: false } as const
    const lease = await host.acquire(addresses === undefined ? shape : { ...shape, addresses })
    const { promise: ready, resolve } = Promise.withResolvers<void>()
    const running = await lease.run({ script, environment: {} }, async ({ bytes }) => {
      const text = Buffer.from(bytes).toString()
      hear(text)
      if (text.includes('ready')) resolve()
      return undefined
    })
    await Promise.race([ready, running.exited.then((exit) => Promise.reject(new Error(`ended: ${JSON.stringify(exit)}`)))])
    return running
  }
  async function run(sandbox: RunningSandbox, command: string): Promise<string> {
    let text = ''
    await sandbox.exec({ command: ['/bin/bash', '-c', command], timeoutMs: 50_000 }, (_source, bytes) => {
      text += Buffer.from(bytes).toString()
    })
    return text.trim()
  }
  /** Which of these can be connected to from inside, all at once. */
  const reached = async (sandbox: RunningSandbox, places: readonly (readonly [string, number])[]) => {
    const attempt = ([address, port]: readonly [string, number]) =>
      `(timeout 4 bash -c 'exec 3<>/dev/tcp/${address}/${port}' 2>/dev/null && echo "in ${address}") &`
    return (await run(sandbox, `${places.map(attempt).join('\n')}\nwait`)).split('\n').filter((line) => line.startsWith('in '))
  }

  it('is reached from outside, and sees who it is; is seen with it there', async () => {
    for (const address of [own.ipv4, own.ipv6, other.ipv6]) expect(await probe(outside, 'connect', [address, 8080]), address).toBe('connected')
    await vi.waitFor(() => expect(heard).toMatch(new RegExp(`from ${outsideAddresses.public}\\n(.*\\n)*from ${outside6}\\n`)), 20_000)
    expect(await probe(outside, 'connect', [own.ipv6, 8081])).toBe('ECONNREFUSED')
    expect(refused).toContain(await probe(outside, 'try', [free, 8080]))
    expect(await reached(machine, [[outside6, 80]])).toEqual([`in ${outside6}`])
    await atOutside.says(`from ${own.ipv6}`)
  })

  it('has this address alone, and takes none that is advertised', async () => {
    const shown = JSON.parse(await run(machine, 'ip -j -6 addr show dev eth0')) as { addr_info: { local: string; prefixlen: number; tentative?: boolean }[] }[]
    expect(shown.flatMap(({ addr_info }) => addr_info)).toEqual([expect.objectContaining({ local: own.ipv6, prefixlen: 128 })])
    expect(await run(machine, 'cd /proc/sys/net/ipv6/conf/eth0; cat accept_ra autoconf addr_gen_mode')).toBe('0\n0\n1')
    expect(await run(unleased, 'cat /proc/sys/net/ipv6/conf/eth0/disable_ipv6; ip -6 addr show dev eth0')).toBe('1')
  })

  it('reaches no other sandbox by it, nor itself by way of the router, no host, private, link-local or metadata address', async () => {
    const hosts = Object.entries(networkInterfaces()).flatMap(([name, all]) =>
      name === 'lo' ? [] : (all ?? []).filter(({ scopeid }) => scopeid === undefined || scopeid === 0).map(({ address }) => [address, hostPort] as const),
    )
    expect(hosts.map(([address]) => address)).toContain(host6)
    const { public: _, ...inside } = outsideAddresses
    const closed = [...Object.values(inside), private6].map((address) => [address, 80] as const)
    const links = ['fe80::1%eth0', 'fe80::5:1%eth0', 'fe80::5:2%eth0'].map((address) => [address, hostPort] as const)
    const others = [other.ipv6, other.ipv4, own.ipv4, free].map((address) => [address, 8080] as const)
    expect(await reached(machine, [...hosts, ...closed, ...links, ...others, ['fd00:ec2::254', 80]])).toEqual([])
  })

  it('cannot speak with the address of another one, or with one that nobody has', async () => {
    await using server = await startProbe(outside, 'listen', ['::', 81])
    const curl = (source: string) => `curl -s -m 4 --interface ${source} 'http://[${outside6}]:81/'`
    const tries = [other.ipv6, free].map(
      (address) => `(ip addr add ${address}/128 dev eth0 nodad; ${curl(address)}; ip addr delete ${address}/128 dev eth0; echo tried) &`,
    )
    expect(await run(machine, `${tries.join('\n')}\nwait`)).toBe('tried\ntried')
    expect(server.lines).toEqual(['ready'])
    // As it can with its own, by the same way.
    await run(machine, curl(own.ipv6))
    expect(server.lines).toEqual(['ready', `from ${own.ipv6}`])
    // And what is sent to the other still comes to whom it belongs.
    expect(await probe(outside, 'connect', [other.ipv6, 8080])).toBe('connected')
  })

  /** What an interface needs besides an address, for one whose root has taken it away. */
  async function wayOut(): Promise<string> {
    const shown = JSON.parse(await run(neighbour, 'ip -j -6 neigh show to fe80::1 dev eth0')) as { lladdr: string; state: string[] }[]
    expect(shown).toEqual([expect.objectContaining({ lladdr: expect.stringMatching(/^02:4d:/), state: ['PERMANENT'] })])
    return `ip neigh replace fe80::1 lladdr ${shown[0]?.lladdr} dev eth0 nud permanent; ip -6 route replace default via fe80::1 dev eth0`
  }

  it('cannot take the place of the other one by its hardware address, or by announcing itself', async () => {
    const [mac, others] = await Promise.all([machine, neighbour].map((each) => run(each, 'cat /sys/class/net/eth0/address')))
    await using server = await startProbe(outside, 'listen', ['::', 82])
    const way = await wayOut()
    const curl = (source: string) => `curl -s -m 4 --interface ${source} 'http://[${outside6}]:82/'`
    const before = heard
    // On a network that believed in it, an answer nobody asked for (RFC 4861, 7.2.6) would do.
    const announce = 'echo 1 >/proc/sys/net/ipv6/conf/eth0/ndisc_notify; ip link set eth0 down; ip link set eth0 up'
    await run(machine, `ip link set eth0 address ${others}; ${announce}; ip addr add ${other.ipv6}/128 dev eth0 nodad; ${way}; ${curl(other.ipv6)}`)
    expect(await probe(outside, 'connect', [other.ipv6, 8080])).toBe('connected')
    expect(server.lines).toEqual(['ready'])
    expect(heard).toBe(before)
    // The same with what it has itself.
    await run(
      machine,
      `ip addr delete ${other.ipv6}/128 dev eth0; ip link set eth0 address ${mac}; ip addr add ${own.ipv6}/128 dev eth0 nodad; ${way}; ${curl(own.ipv6)}`,
    )
    expect(server.lines).toEqual(['ready', `from ${own.ipv6}`])
  })

  it('one without a lease has no IPv6, also when it turns it on', async () => {
    await using server = await startProbe(outside, 'listen', ['::', 83])
    const turnOn = `echo 0 >/proc/sys/net/ipv6/conf/eth0/disable_ipv6; ${await wayOut()}`
    const tries = [own.ipv6, free].map(
      (address) =>
        `(ip addr add ${address}/128 dev eth0 nodad; curl -s -m 4 --interface ${address} 'http://[${outside6}]:83/'; ip addr delete ${address}/128 dev eth0; echo tried) &`,
    )
    expect(await run(unleased, `${turnOn}\n${tries.join('\n')}\nwait`)).toMatch(/tried\ntried$/)
    expect(server.lines).toEqual(['ready'])
    expect(refused).toContain(await probe(outside, 'try', [free, 8080]))
  })
})
