import { randomBytes } from 'node:crypto'
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { type AddressInfo, createServer } from 'node:net'
import { networkInterfaces, tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { openNetwork } from '@mags/host'
import { pino } from 'pino'
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest'
import { nftIn, probe, type Resident, runIn, startIn, startProbe } from '../kit/namespace-program.ts'
import { findNetworkLeaks } from '../kit/network-leaks.ts'
import { hostPublicAddress, openOutsideWorld, outsideAddresses } from '../kit/outside-world.ts'

type Network = Awaited<ReturnType<typeof openNetwork>>
type Slot = Awaited<ReturnType<Network['createContainerSlot']>>

/** Real namespaces and rules: needs root. MAGS_REQUIRE_CONTAINER=1 turns the skip into a failure. */
const isRoot = process.getuid?.() === 0
const required = process.env.MAGS_REQUIRE_CONTAINER === '1'
if (!isRoot && !required) console.warn('network tests skipped: they need root')

const newInstance = () => randomBytes(3).toString('hex')
const logger = pino({ level: 'silent' })
const refused = ['ECONNREFUSED', 'EHOSTUNREACH', 'ENETUNREACH', 'timeout']

describe.skipIf(!isRoot && !required)('what a sandbox reaches', () => {
  const instance = newInstance()
  const held = new AsyncDisposableStack()
  let network: Network
  let outside: string
  let first: Slot
  let second: Slot
  let runDir: string
  /** Listens on every address of the host, and says where connections come from. */
  let hostPort: number
  const nameServer = `${outsideAddresses.public}#5300`

  beforeAll(async () => {
    const world = held.use(await openOutsideWorld())
    outside = world.netnsPath
    runDir = await mkdtemp(join(tmpdir(), 'mags-net-'))
    held.defer(() => rm(runDir, { recursive: true }))
    const server = createServer((socket) => socket.end()).listen(0, '0.0.0.0')
    await new Promise((resolve) => server.once('listening', resolve))
    held.defer(async () => {
      await new Promise((resolve) => server.close(resolve))
    })
    hostPort = (server.address() as AddressInfo).port
    held.use(await startProbe(outside, 'listen', ['0.0.0.0', 80]))
    held.use(await startProbe(outside, 'listen', ['0.0.0.0', 53]))
    held.use(await startProbe(outside, 'answer', [outsideAddresses.public, 5300]))
    network = await openNetwork({ instance, runDir, logger, dnsServers: [nameServer] })
    held.defer(() => network.close({ keep: false }))
    ;[first, second] = (await network.createContainerSlots([0, 1])) as [Slot, Slot]
  })
  afterAll(() => held.disposeAsync())

  /** Takes rules away for the length of `action`, to show that they are what refuses; a fresh network afterwards would hide order effects, so they are put back exactly. */
  async function without<T>(place: string, family: string, table: string, loosen: string, action: () => Promise<T>): Promise<T> {
    const saved = await runIn(place, 'nft', '-s', 'list', 'table', family, table)
    await nftIn(place, loosen)
    try {
      return await action()
    } finally {
      await nftIn(place, `delete table ${family} ${table}\n${saved}\n`)
    }
  }
  const withoutRouterRanges = <T>(action: () => Promise<T>) => without(network.routerNetnsPath, 'inet', 'mags', 'flush set inet mags denied', action)
  const withoutHostRanges = <T>(action: () => Promise<T>) => without('host', 'inet', `mags_${instance}`, `flush set inet mags_${instance} denied`, action)
  const withoutHostInput = <T>(action: () => Promise<T>) => without('host', 'inet', `mags_${instance}`, `flush chain inet mags_${instance} input`, action)
  const openBridge = (chain: string) => `flush chain bridge mags ${chain}\nadd chain bridge mags ${chain} { policy accept; }`
  const withoutBridge = <T>(chains: readonly string[], action: () => Promise<T>) =>
    without(network.routerNetnsPath, 'bridge', 'mags', chains.map(openBridge).join('\n'), action)
  async function withoutIsolation<T>(action: () => Promise<T>): Promise<T> {
    const set = async (isolated: string) => {
      // Searches for neighbours are broadcasts, which no port gets either.
      const flood = isolated === 'on' ? 'off' : 'on'
      const settings = ['isolated', isolated, 'bcast_flood', flood, 'mcast_flood', flood]
      for (const link of ['v0', 'v1']) await runIn(network.routerNetnsPath, 'ip', 'link', 'set', link, 'type', 'bridge_slave', ...settings)
    }
    await set('off')
    try {
      return await action()
    } finally {
      await set('on')
    }
  }

  /** A failed search for a neighbour is remembered for seconds; each attempt starts without. */
  async function fresh<T>(action: () => Promise<T>): Promise<T> {
    for (const slot of [first, second]) await runIn(slot.netnsPath, 'ip', 'neigh', 'flush', 'dev', 'eth0', 'nud', 'all')
    return action()
  }

  it('the internet, with the uplink MTU', async () => {
    expect(await probe(first.netnsPath, 'connect', [outsideAddresses.public, 80])).toBe('connected')
    expect(await runIn(first.netnsPath, 'ip', 'link', 'show', 'eth0')).toContain(`mtu ${network.uplinkMtu} `)
  })

  for (const [kind, address] of Object.entries(outsideAddresses)) {
    if (kind === 'public') continue
    it(`not ${kind} (${address}): either wall refuses alone, and at once`, async () => {
      const attempt = () => probe(first.netnsPath, 'connect', [address, 80])
      expect(await attempt()).toBe('ECONNREFUSED')
      expect(await withoutRouterRanges(attempt)).toBe('ECONNREFUSED')
      expect(await withoutHostRanges(attempt)).toBe('ECONNREFUSED')
      expect(await withoutRouterRanges(() => withoutHostRanges(attempt))).toBe('connected')
    })
  }

  it('not the host, by any of its addresses, public ones included', async () => {
    const uplink = networkInterfaces()[`mags${instance}`]?.find((each) => each.family === 'IPv4')?.address ?? ''
    const own = Object.entries(networkInterfaces()).flatMap(([name, all]) =>
      name === 'lo' || name.startsWith('mags') ? [] : (all ?? []).filter((each) => each.family === 'IPv4').map((each) => each.address),
    )
    expect(own).toContain(hostPublicAddress)
    for (const address of [uplink, ...own]) {
      const attempt = () => probe(first.netnsPath, 'connect', [address, hostPort])
      expect(await attempt(), address).toBe('ECONNREFUSED')
      expect(await withoutRouterRanges(attempt), address).toBe('ECONNREFUSED')
      expect(await withoutRouterRanges(() => withoutHostInput(attempt)), address).toBe('connected')
    }
  })

  it("not the host's loopback, and its own loopback is its own", async () => {
    expect(await probe('host', 'connect', ['127.0.0.1', hostPort])).toBe('connected')
    expect(await probe(first.netnsPath, 'connect', ['127.0.0.1', hostPort])).toBe('ECONNREFUSED')
    expect(await probe(first.netnsPath, 'connect', ['::1', hostPort])).toBe('ECONNREFUSED')
  })

  it('not the router, except for names', async () => {
    const listener = await startProbe(network.routerNetnsPath, 'listen', ['0.0.0.0', 8080])
    await using _ = listener
    const attempt = () => probe(first.netnsPath, 'connect', [network.resolver, 8080])
    expect(await attempt()).toBe('ECONNREFUSED')
    expect(listener.lines).toEqual(['ready'])
    const loosen = 'insert rule inet mags input accept\ninsert rule inet mags output accept'
    expect(await without(network.routerNetnsPath, 'inet', 'mags', loosen, attempt)).toBe('connected')
    expect(await probe(first.netnsPath, 'connect', [network.resolver, 53])).toBe('connected')
  })

  it('not another sandbox: isolated ports and bridge rules each refuse alone', async () => {
    await using _ = await startProbe(second.netnsPath, 'listen', ['0.0.0.0', 8080])
    const attempt = (how: 'try' | 'connect') => fresh(() => probe(first.netnsPath, how, [second.address, 8080]))
    expect(refused).toContain(await attempt('try'))
    expect(refused).toContain(await withoutIsolation(() => attempt('try')))
    expect(refused).toContain(await withoutBridge(['forward'], () => attempt('try')))
    expect(await withoutIsolation(() => withoutBridge(['forward'], () => attempt('connect')))).toBe('connected')
  })

  it('not another sandbox by way of the router', async () => {
    await using _ = await startProbe(second.netnsPath, 'listen', ['0.0.0.0', 8080])
    for (const [slot, other] of [[first, second] as const, [second, first] as const])
      await runIn(slot.netnsPath, 'ip', 'route', 'add', `${other.address}/32`, 'via', network.resolver)
    try {
      const attempt = () => probe(first.netnsPath, 'connect', [second.address, 8080])
      expect(await attempt()).toBe('ECONNREFUSED')
      expect(await without(network.routerNetnsPath, 'inet', 'mags', 'insert rule inet mags forward accept', attempt)).toBe('connected')
    } finally {
      for (const [slot, other] of [[first, second] as const, [second, first] as const])
        await runIn(slot.netnsPath, 'ip', 'route', 'delete', `${other.address}/32`)
    }
  })

  it('not under the address of another sandbox', async () => {
    await using receiver = await startProbe(outside, 'receive', ['0.0.0.0', 9000])
    await runIn(first.netnsPath, 'ip', 'addr', 'add', `${second.address}/32`, 'dev', 'eth0')
    try {
      const send = (from: string, text: string) => probe(first.netnsPath, 'send', [outsideAddresses.public, 9000, from, text])
      await send(second.address, 'forged')
      await send(first.address, 'honest')
      await receiver.says('honest')
      expect(receiver.lines).toEqual(['ready', 'honest'])
      await withoutBridge(['prerouting'], async () => {
        await send(second.address, 'forged without the rule')
        await receiver.says('forged without the rule')
      })
    } finally {
      await runIn(first.netnsPath, 'ip', 'addr', 'delete', `${second.address}/32`, 'dev', 'eth0')
    }
  })

  it('no place of another sandbox in the neighbour table', async () => {
    const forge = async () => {
      const bytes = (text: string, base: number) => text.split(base === 16 ? ':' : '.').map((part) => Number.parseInt(part, base))
      const mac = bytes(first.mac, 16)
      // RFC 826: a request for the router's address, sent by the first sandbox in the name of the second.
      const frame = [
        255,
        255,
        255,
        255,
        255,
        255,
        ...mac,
        8,
        6,
        0,
        1,
        8,
        0,
        6,
        4,
        0,
        1,
        ...mac,
        ...bytes(second.address, 10),
        0,
        0,
        0,
        0,
        0,
        0,
        ...bytes(network.resolver, 10),
      ]
      const hex = frame.map((byte) => byte.toString(16).padStart(2, '0')).join('')
      const script =
        'use strict; socket(my $s, 17, 3, 0x0608) or die $!; open(my $f, "<", "/proc/net/dev") or die; my ($hex, $index) = @ARGV; send($s, pack("H*", $hex), 0, pack("SnlSCCa8", 17, 0x0806, $index, 1, 0, 6, "")) or die $!'
      const index = /^(\d+):/.exec(await runIn(first.netnsPath, 'ip', '-o', 'link', 'show', 'eth0'))?.[1] ?? ''
      await runIn(first.netnsPath, 'perl', '-e', script, hex, index)
      // An exchange that the frame is ahead of, on the same wire.
      await probe(first.netnsPath, 'connect', [network.resolver, 53])
      return runIn(network.routerNetnsPath, 'ip', 'neigh', 'show', second.address)
    }
    expect(await forge()).toContain(second.mac)
    await runIn(network.routerNetnsPath, 'ip', 'neigh', 'delete', second.address, 'dev', 'br0')
    try {
      expect(await forge()).toBe('')
      expect(await withoutBridge(['prerouting'], forge)).toContain(first.mac)
    } finally {
      await runIn(network.routerNetnsPath, 'ip', 'neigh', 'replace', second.address, 'lladdr', second.mac, 'dev', 'br0', 'nud', 'permanent')
    }
  })

  it('nothing by IPv6', async () => {
    expect(await probe(first.netnsPath, 'connect', ['2606:4700::1111', 80])).toBe('ENETUNREACH')
    await runIn(first.netnsPath, 'ip', '-6', 'addr', 'add', 'fd99::1/64', 'dev', 'eth0', 'nodad')
    await runIn(second.netnsPath, 'ip', '-6', 'addr', 'add', 'fd99::2/64', 'dev', 'eth0', 'nodad')
    await using _ = await startProbe(second.netnsPath, 'listen', ['::', 8080])
    const attempt = (how: 'try' | 'connect') => fresh(() => withoutIsolation(() => probe(first.netnsPath, how, ['fd99::2', 8080])))
    expect(refused).toContain(await withoutBridge(['forward'], () => attempt('try')))
    expect(await withoutBridge(['forward', 'prerouting'], () => attempt('connect'))).toBe('connected')
  })

  it('names: only through the resolver, no AAAA, none that lead to refused addresses', async () => {
    const resolve = (name: string, type = 'A') => probe(first.netnsPath, 'resolve', [network.resolver, name, type])
    expect(await resolve('11-22-33-44.test')).toBe('11.22.33.44')
    expect(await probe(first.netnsPath, 'resolve', [nameServer.replace('#', ':'), '11-22-33-44.test', 'A'])).not.toBe('11.22.33.44')
    expect(await probe('host', 'resolve', [nameServer.replace('#', ':'), '11-22-33-44.test', 'A'])).toBe('11.22.33.44')
    expect(await resolve('10-1-2-3.test')).toBe('ENOTFOUND')
    expect(await resolve('169-254-169-254.test')).toBe('ENOTFOUND')
    expect(await resolve('127-0-0-1.test')).toBe('ENOTFOUND')
    expect(await resolve('11-22-33-45.test', 'AAAA')).toBe('ENODATA')
    const direct = () => probe(first.netnsPath, 'connect', [outsideAddresses.public, 53])
    expect(await direct()).toBe('ECONNREFUSED')
    expect(await without(network.routerNetnsPath, 'inet', 'mags', 'flush chain inet mags outbound\nadd rule inet mags outbound goto open', direct)).toBe(
      'connected',
    )
  })

  it('nothing at all for other users inside the router', async () => {
    const attempt = (how: 'try' | 'connect', uid: string) =>
      probe(network.routerNetnsPath, how, [outsideAddresses.public, 80], ['setpriv', '--reuid', uid, '--clear-groups'])
    expect(refused).toContain(await attempt('try', '65534'))
    expect(await attempt('connect', '0')).toBe('connected')
  })

  it('low ports and ping without capabilities over the namespace', async () => {
    const asSandboxRoot = ['unshare', '--user', '--map-root-user']
    const bind = 'require("net").createServer().listen(80, "0.0.0.0", function () { console.log("bound"); this.close() })'
    expect(await runIn(first.netnsPath, ...asSandboxRoot, process.execPath, '-e', bind)).toBe('bound')
    expect(await runIn(first.netnsPath, ...asSandboxRoot, 'perl', '-e', 'socket(my $s, 2, 2, 1) or die $!; print "open"')).toBe('open')
  })

  it('after renew, nothing that the sandbox before had open', async () => {
    await using before = await startProbe(first.netnsPath, 'talk', [outsideAddresses.public, 80], 'connected')
    await using other = await startProbe(second.netnsPath, 'talk', [outsideAddresses.public, 80], 'connected')
    before.tell('one')
    await before.says('one')
    await network.renew(first)
    before.tell('two')
    other.tell('neighbour')
    await other.says('neighbour')
    expect(before.lines).not.toContain('two')
    expect(await probe(first.netnsPath, 'connect', [outsideAddresses.public, 80])).toBe('connected')
    await vi.waitFor(() => expect(before.lines.join()).toMatch(/ECONNRESET|ECONNREFUSED/), 20_000)
  })

  it('taps: on the bridge, isolated, for root alone', async () => {
    const slots = await network.createTapSlots([0, 1, 2])
    expect(new Set([...slots, first, second].map((slot) => slot.address)).size).toBe(5)
    const shown = await runIn(network.routerNetnsPath, 'ip', '-d', 'link', 'show', 't0')
    expect(shown).toContain('master br0')
    expect(shown).toContain('isolated on')
    expect(shown).toContain(`mtu ${network.uplinkMtu}`)
    for (const setting of ['type tap', 'vnet_hdr on', 'persist on', 'user root']) expect(shown).toContain(setting)
    for (const slot of slots) await network.free(slot)
    expect(await runIn(network.routerNetnsPath, 'ip', '-br', 'link')).not.toMatch(/^t\d/m)
  })

  it('two networks on one machine at once', async () => {
    const other = newInstance()
    const dir = await mkdtemp(join(tmpdir(), 'mags-net-'))
    const neighbour = await openNetwork({ instance: other, runDir: dir, logger, dnsServers: [nameServer] })
    const slot = await neighbour.createContainerSlot(0)
    expect(slot.address).toBe(first.address)
    const [one, two] = await Promise.all([first, slot].map((each) => probe(each.netnsPath, 'connect', [outsideAddresses.public, 80])))
    expect([one, two]).toEqual(['connected', 'connected'])
    await neighbour.close({ keep: false })
    expect(await findNetworkLeaks(other, dir)).toEqual([])
    await rm(dir, { recursive: true })
    expect(await probe(first.netnsPath, 'connect', [outsideAddresses.public, 80])).toBe('connected')
  })

  it('the resolver comes back when it dies', async () => {
    const find = async () => (await findNetworkLeaks(instance, runDir)).find((line) => line.endsWith(' dnsmasq'))?.split(' ')[0]
    const before = await find()
    process.kill(Number(before), 'SIGKILL')
    await vi.waitFor(async () => expect(await probe(first.netnsPath, 'resolve', [network.resolver, '11-22-33-46.test', 'A'])).toBe('11.22.33.46'), 20_000)
    expect(await find()).not.toBe(before)
  })
})

describe.skipIf(!isRoot && !required)('the network of a daemon', () => {
  const held = new AsyncDisposableStack()
  let outside: string
  const nameServer = `${outsideAddresses.public}#5300`

  beforeAll(async () => {
    const world = held.use(await openOutsideWorld())
    outside = world.netnsPath
    held.use(await startProbe(outside, 'listen', ['0.0.0.0', 80]))
    held.use(await startProbe(outside, 'answer', [outsideAddresses.public, 5300]))
  })
  afterAll(() => held.disposeAsync())

  /** A daemon in a mount namespace of its own, as the real one is. */
  async function startDaemon(instance: string, runDir: string): Promise<{ daemon: Resident; sandboxPid: number }> {
    const file = fileURLToPath(new URL('../kit/network-daemon.ts', import.meta.url))
    const mounts = ['unshare', '--mount', '--propagation', 'private']
    const daemon = startIn('host', [...mounts, process.execPath, '--conditions=source', file, instance, runDir, nameServer])
    await daemon.says('ready')
    await vi.waitFor(() => expect(daemon.lines.length).toBe(2), 20_000)
    return { daemon, sandboxPid: Number(daemon.lines[1]) }
  }

  it('killed: sandboxes keep network and rules, the next daemon takes both over', async () => {
    const instance = newInstance()
    const runDir = await mkdtemp(join(tmpdir(), 'mags-net-'))
    const { daemon, sandboxPid } = await startDaemon(instance, runDir)
    try {
      await daemon[Symbol.asyncDispose]()
      const place = `/proc/${sandboxPid}/ns/net`
      expect(await probe(place, 'connect', [outsideAddresses.public, 80])).toBe('connected')
      expect(await probe(place, 'connect', [outsideAddresses.metadata, 80])).toBe('ECONNREFUSED')
      expect(await probe(place, 'resolve', ['10.213.0.1', '11-22-33-44.test', 'A'])).toBe('11.22.33.44')

      const network = await openNetwork({ instance, runDir, logger, dnsServers: [nameServer] })
      try {
        const slot = await network.adoptContainerSlot(0, sandboxPid)
        await network.freeUnadopted()
        expect(slot?.address).toBe('10.213.0.2')
        expect(await runIn(network.routerNetnsPath, 'ip', '-br', 'link')).not.toMatch(/^v1\b/m)
        expect(await probe(slot?.netnsPath ?? '', 'connect', [outsideAddresses.public, 80])).toBe('connected')
        expect(await probe(slot?.netnsPath ?? '', 'connect', [outsideAddresses.private10, 80])).toBe('ECONNREFUSED')
        const fresh = await network.createContainerSlot(1)
        expect(await probe(fresh.netnsPath, 'connect', [outsideAddresses.public, 80])).toBe('connected')
      } finally {
        await network.close({ keep: false })
      }
      expect(refused).toContain(await probe(place, 'try', [outsideAddresses.public, 80]))
      expect(await findNetworkLeaks(instance, runDir)).toEqual([])
    } finally {
      process.kill(sandboxPid, 'SIGKILL')
      await rm(runDir, { recursive: true })
    }
  })

  it('stopped with keep: nothing of it is mounted, and the next daemon takes it over', async () => {
    const instance = newInstance()
    const runDir = await mkdtemp(join(tmpdir(), 'mags-net-'))
    const first = await openNetwork({ instance, runDir, logger, dnsServers: [nameServer] })
    const slot = await first.createContainerSlot(7)
    const sandbox = startIn(slot.netnsPath, ['sleep', '600'])
    await using _ = sandbox
    await probe(slot.netnsPath, 'connect', [outsideAddresses.public, 80])
    await first.close({ keep: true })
    expect((await findNetworkLeaks(instance, runDir)).filter((line) => line.includes('nsfs'))).toEqual([])
    expect(await probe(`/proc/${sandbox.pid}/ns/net`, 'connect', [outsideAddresses.public, 80])).toBe('connected')
    const second = await openNetwork({ instance, runDir, logger, dnsServers: [nameServer] })
    expect((await second.adoptContainerSlot(7, sandbox.pid))?.mac).toBe(slot.mac)
    await second.close({ keep: false })
    expect(await findNetworkLeaks(instance, runDir)).toEqual([])
    await rm(runDir, { recursive: true })
  })

  it('dead with everything in it: the uplink is gone by itself, and any later start removes its table', async () => {
    const instance = newInstance()
    const runDir = await mkdtemp(join(tmpdir(), 'mags-net-'))
    const { daemon, sandboxPid } = await startDaemon(instance, runDir)
    process.kill(sandboxPid, 'SIGKILL')
    await daemon[Symbol.asyncDispose]()
    const resolver = (await findNetworkLeaks(instance, runDir)).find((line) => line.endsWith(' dnsmasq'))
    process.kill(Number(resolver?.split(' ')[0]), 'SIGKILL')
    await vi.waitFor(async () => expect(await findNetworkLeaks(instance, runDir)).not.toContain(`mags${instance}`), 30_000)
    expect(await findNetworkLeaks(instance, runDir)).toContain(`table inet mags_${instance}`)

    const other = newInstance()
    const otherDir = await mkdtemp(join(tmpdir(), 'mags-net-'))
    const network = await openNetwork({ instance: other, runDir: otherDir, logger, dnsServers: [nameServer] })
    expect(await findNetworkLeaks(instance, runDir)).not.toContain(`table inet mags_${instance}`)
    await network.close({ keep: false })
    await rm(otherDir, { recursive: true })

    // The same instance starts anew in the folder the dead one left.
    const again = await openNetwork({ instance, runDir, logger, dnsServers: [nameServer] })
    const slot = await again.createContainerSlot(0)
    expect(await probe(slot.netnsPath, 'connect', [outsideAddresses.public, 80])).toBe('connected')
    await again.close({ keep: false })
    expect(await findNetworkLeaks(instance, runDir)).toEqual([])
    await rm(runDir, { recursive: true })
  })

  it('killed before the resolver was written down: the next start leaves one resolver, and no other', async () => {
    const instance = newInstance()
    const runDir = await mkdtemp(join(tmpdir(), 'mags-net-'))
    const first = await openNetwork({ instance, runDir, logger, dnsServers: [nameServer] })
    await first.close({ keep: true })
    const resolvers = async () => (await findNetworkLeaks(instance, runDir)).filter((line) => line.endsWith(' dnsmasq'))
    const before = await resolvers()
    expect(before.length).toBe(1)
    const record = join(runDir, 'network.json')
    const { resolver: _, ...rest } = JSON.parse(await readFile(record, 'utf8')) as Record<string, unknown>
    await writeFile(record, JSON.stringify(rest))
    const second = await openNetwork({ instance, runDir, logger, dnsServers: [nameServer] })
    const after = await resolvers()
    expect(after.length).toBe(1)
    expect(after).not.toEqual(before)
    await second.close({ keep: false })
    expect(await findNetworkLeaks(instance, runDir)).toEqual([])
    await rm(runDir, { recursive: true })
  })

  it('reaches a package mirror by name through the real name servers', async () => {
    const instance = newInstance()
    const runDir = await mkdtemp(join(tmpdir(), 'mags-net-'))
    const network = await openNetwork({ instance, runDir, logger, ...operatorSettings() })
    try {
      const slot = await network.createContainerSlot(0)
      expect(await probe(slot.netnsPath, 'fetch', [network.resolver, 'deb.debian.org', '/debian/dists/stable/Release'])).toMatch(/^[23]\d\d$/)
    } finally {
      await network.close({ keep: false })
      await rm(runDir, { recursive: true })
    }
  })
})

/** Name servers and exceptions of this machine's operator, as the server reads them. */
function operatorSettings() {
  const list = (name: string) => (process.env[name] ?? '').split(',').filter((item) => item !== '')
  return { dnsServers: list('MAGS_DNS_SERVERS'), egressAllow: list('MAGS_EGRESS_ALLOW') }
}
