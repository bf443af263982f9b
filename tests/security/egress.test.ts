import { randomBytes } from 'node:crypto'
import { existsSync } from 'node:fs'
import { mkdtemp, readdir, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { openHost, openNetwork } from '@mags/host'
import type { EgressPolicy, HostApi, RefusedConnection } from '@mags/protocol'
import { pino } from 'pino'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it, vi } from 'vitest'
import { Egress } from '../../packages/host/src/egress/egress.ts'
import { probe, type Resident, runIn, startIn, startProbe } from '../kit/namespace-program.ts'
import { findNetworkLeaks } from '../kit/network-leaks.ts'
import { openOutsideWorld, outsideAddresses } from '../kit/outside-world.ts'
import { canTest, notRoot } from '../kit/require.ts'

type Network = Awaited<ReturnType<typeof openNetwork>>
type Slot = Awaited<ReturnType<Network['createContainerSlot']>>

/** Real namespaces and rules: needs root. MAGS_REQUIRE_CONTAINER=1 turns the skip into a failure. */
const isRoot = process.getuid?.() === 0
const required = process.env.MAGS_REQUIRE_CONTAINER === '1'
if (!isRoot && !required) console.warn('egress tests skipped: they need root')

const logger = pino({ level: 'silent' })
const newInstance = () => randomBytes(3).toString('hex')
const nameServer = `${outsideAddresses.public}#5300`
/** Two more addresses of the outside, each a site of its own. */
const one = '11.22.44.1'
const two = '11.22.55.2'

const zone = {
  'one.test': [`A 1 ${one}`],
  'two.test': [`A 60 ${two}`],
  'www.one.test': ['CNAME 60 cdn.two.test'],
  'cdn.two.test': [`A 60 ${two}`],
  'inside.one.test': ['A 60 10.99.99.1'],
  'mixed.one.test': ['A 60 169.254.169.254', `A 60 ${two}`],
  'to-bad.one.test': ['CNAME 60 bad.two.test'],
  'bad.two.test': [`A 60 ${two}`],
  'long.one.test': Array.from({ length: 12 }, (_, place) => `TXT 60 ${String(place).padStart(200, 'x')}`),
}

describe.skipIf(!isRoot && !required)('egress', () => {
  const held = new AsyncDisposableStack()
  let outside: string
  let names: Resident

  beforeAll(async () => {
    const world = held.use(await openOutsideWorld())
    outside = world.netnsPath
    for (const address of [one, two]) {
      await runIn(outside, 'ip', 'addr', 'add', `${address}/32`, 'dev', 'eth0')
      await runIn('host', 'ip', 'route', 'add', `${address}/32`, 'dev', 'mgtest0')
    }
    held.use(await startProbe(outside, 'listen', ['0.0.0.0', 80]))
    names = held.use(startIn(outside, [process.execPath, fileURLToPath(new URL('../kit/name-server.ts', import.meta.url)), outsideAddresses.public, '5300']))
    await names.says('ready')
    names.tell(JSON.stringify(zone))
    await names.says('zone 1')
  })
  afterAll(() => held.disposeAsync())

  describe('of one sandbox', () => {
    const instance = newInstance()
    let runDir: string
    let network: Network
    let egress: Egress
    let slot: Slot
    let other: Slot

    beforeAll(async () => {
      runDir = await mkdtemp(join(tmpdir(), 'mags-egress-'))
      network = await openNetwork({ instance, runDir, logger, dnsServers: [nameServer] })
      egress = new Egress({ network, logger })
      ;[slot, other] = (await network.createContainerSlots([0, 1])) as [Slot, Slot]
    })
    afterAll(async () => {
      egress.close()
      await network.close({ keep: false })
      expect(await findNetworkLeaks(instance, runDir)).toEqual([])
      await rm(runDir, { recursive: true })
    })
    /** Each test has a new sandbox's slot. */
    beforeEach(() => network.renew(slot))

    const set = (policy: EgressPolicy) => egress.of({ network: slot }).set(policy)
    const reach = (address: string, place = slot) => probe(place.netnsPath, 'connect', [address, 80])
    const resolve = (name: string, type = 'A', place = slot) => probe(place.netnsPath, 'resolve', [network.resolver, name, type])

    it('without a policy: all that this machine allows', async () => {
      expect(await reach(one)).toBe('connected')
      expect(await resolve('two.test')).toBe(two)
    })

    it('allows by address and block and refuses the rest at once', async () => {
      await set({ allow: [one, '11.22.55.0/24'] })
      expect(await reach(one)).toBe('connected')
      expect(await reach(two)).toBe('connected')
      expect(await reach(outsideAddresses.public)).toBe('ECONNREFUSED')
      expect(await reach(outsideAddresses.public, other)).toBe('connected')
    })

    it('denies by block, and deny wins', async () => {
      await set({ deny: [two] })
      expect(await reach(one)).toBe('connected')
      expect(await reach(two)).toBe('ECONNREFUSED')
      await set({ allow: ['11.22.0.0/16'], deny: ['11.22.55.0/24'] })
      expect(await reach(one)).toBe('connected')
      expect(await reach(two)).toBe('ECONNREFUSED')
    })

    it('none: nothing, and no names', async () => {
      await set('none')
      expect(await reach(one)).toBe('ECONNREFUSED')
      expect(await resolve('one.test')).toBe('ECONNREFUSED')
      await set({})
      expect(await reach(one)).toBe('connected')
      expect(await resolve('two.test')).toBe(two)
    })

    it('what this machine refuses is lifted by no list', async () => {
      await expect(set({ allow: ['10.99.99.1'] })).rejects.toThrow(
        'egress.allow.0: 10.99.99.1 lies in 10.0.0.0/8, which this server refuses; that cannot be lifted by a job',
      )
      await set({ allow: ['0.0.0.0/0'] })
      expect(await reach(one)).toBe('connected')
      for (const address of [outsideAddresses.private10, outsideAddresses.metadata, outsideAddresses.carrier]) expect(await reach(address)).toBe('ECONNREFUSED')
      await using _ = await startProbe(other.netnsPath, 'listen', ['0.0.0.0', 80])
      expect(['ECONNREFUSED', 'EHOSTUNREACH', 'timeout']).toContain(await probe(slot.netnsPath, 'try', [other.address, 80]))
    })

    it('an allow list of addresses answers no names', async () => {
      await set({ allow: [one] })
      expect(await resolve('one.test')).toBe('ECONNREFUSED')
    })

    it('a change cuts what it does not allow, and only that', async () => {
      await using first = await startProbe(slot.netnsPath, 'talk', [one, 80], 'connected')
      await using second = await startProbe(slot.netnsPath, 'talk', [two, 80], 'connected')
      first.tell('a')
      second.tell('b')
      await first.says('a')
      await second.says('b')
      await set({ deny: [two] })
      first.tell('still')
      await first.says('still')
      second.tell('gone')
      await vi.waitFor(() => expect(second.lines.join()).toMatch(/ECONNRESET|ECONNREFUSED/), 20_000)
      expect(second.lines).not.toContain('gone')
      await set({ deny: ['11.22.33.0/24'] })
      first.tell('after another')
      await first.says('after another')
    })

    it('a change reaches connections that only receive: they go on, or stop', async () => {
      const server = `let n = 0; const all = new Set(); setInterval(() => { n++; for (const s of all) s.write("tick " + n + "\\n"); console.log("sent " + n) }, 100)
        require("net").createServer((s) => { s.on("error", () => {}); all.add(s) }).listen(81, () => console.log("ready"))`
      await using ticking = startIn(outside, [process.execPath, '-e', server])
      await ticking.says('ready')
      await using talk = await startProbe(slot.netnsPath, 'talk', [one, 81], 'connected')
      const now = () => Number(/\d+/.exec(ticking.lines.at(-1) ?? '')?.[0] ?? 0)
      await talk.says(`tick ${now() + 2}`)
      await set({ allow: [one] })
      await talk.says(`tick ${now() + 3}`)
      await set({ allow: [two] })
      const last = now() + 1
      await ticking.says(`sent ${last + 10}`)
      for (let tick = last + 1; tick <= last + 10; tick++) expect(talk.lines).not.toContain(`tick ${tick}`)
    })

    it('domains: the name first, then what it led to', async () => {
      await set({ allow: ['one.test', '*.two.test'] })
      expect(await reach(one)).toBe('ECONNREFUSED')
      expect(await resolve('one.test')).toBe(one)
      expect(await reach(one)).toBe('connected')
      expect(await reach(two)).toBe('ECONNREFUSED')
      expect(await resolve('cdn.two.test')).toBe(two)
      expect(await reach(two)).toBe('connected')
      expect(await reach(two, other)).toBe('connected')
    })

    it('names are no way out: others are not asked for anywhere', async () => {
      await set({ allow: ['one.test'] })
      const asked = names.lines.length
      expect(await resolve('c2VjcmV0.two.test')).toBe('EREFUSED')
      expect(await resolve('c2VjcmV0.one.test')).toBe('EREFUSED')
      expect(await resolve('two.test', 'TXT')).toBe('EREFUSED')
      expect(names.lines.slice(asked).filter((line) => !line.startsWith('from'))).toEqual([])
      expect(await probe(slot.netnsPath, 'resolve', [nameServer.replace('#', ':'), 'two.test', 'A'])).not.toBe(two)
    })

    it('follows aliases inside one answer, and a denied alias refuses', async () => {
      await set({ allow: ['*.one.test'], deny: ['bad.two.test'] })
      expect(await resolve('www.one.test')).toBe(two)
      expect(await reach(two)).toBe('connected')
      expect(await resolve('cdn.two.test')).toBe('EREFUSED')
      expect(await resolve('to-bad.one.test')).toBe('EREFUSED')
    })

    it('ends with the answer, after five seconds at least', async () => {
      await set({ allow: ['one.test'] })
      expect(await resolve('one.test')).toBe(one)
      await using talk = await startProbe(slot.netnsPath, 'talk', [one, 80], 'connected')
      await vi.waitFor(async () => expect(await reach(one)).toBe('ECONNREFUSED'), { timeout: 20_000, interval: 200 })
      // What is open stays open.
      talk.tell('later')
      await talk.says('later')
      expect(await resolve('one.test')).toBe(one)
      expect(await reach(one)).toBe('connected')
    }, 30_000)

    it('names that lead inside are not told', async () => {
      await set({ allow: ['*.one.test'] })
      expect(await resolve('inside.one.test')).toBe('ENOTFOUND')
      expect(await resolve('mixed.one.test')).not.toContain('169.254')
      expect(await reach(outsideAddresses.private10)).toBe('ECONNREFUSED')
      expect(await reach(outsideAddresses.metadata)).toBe('ECONNREFUSED')
    })

    it('denied domains alone: others are answered, and nothing else changes', async () => {
      await set({ deny: ['two.test'] })
      expect(await resolve('two.test')).toBe('EREFUSED')
      expect(await resolve('one.test')).toBe(one)
      expect(await reach(one)).toBe('connected')
    })

    it('long answers by TCP', async () => {
      await set({ allow: ['long.one.test'] })
      expect((await resolve('long.one.test', 'TXT')).split(' ').length).toBe(12)
    })

    it('a change keeps what names have opened and the new policy allows', async () => {
      await set({ allow: ['two.test', 'one.test'] })
      expect(await resolve('two.test')).toBe(two)
      await using talk = await startProbe(slot.netnsPath, 'talk', [two, 80], 'connected')
      await set({ allow: ['two.test'] })
      talk.tell('kept')
      await talk.says('kept')
      expect(await reach(two)).toBe('connected')
      await set({ allow: ['one.test'] })
      expect(await reach(two)).toBe('ECONNREFUSED')
    })

    it('garbage does not end the forwarder', async () => {
      await set({ allow: ['one.test'] })
      const flood = `const s = require("dgram").createSocket("udp4"); const c = require("crypto"); let n = 0
        const go = () => { for (let i = 0; i < 20 && n < 300; i++, n++) { const b = c.randomBytes(c.randomInt(1, 600)); if (n % 2 && b.length > 12) b.set([1,0,0,1,0,0,0,0,0,0], 2); s.send(b, 53, "${network.resolver}") } n < 300 ? setTimeout(go, 60) : setTimeout(() => s.close(), 200) }; go()`
      const pid = await forwarderPid(instance)
      await runIn(slot.netnsPath, process.execPath, '-e', flood)
      expect(await resolve('one.test')).toBe(one)
      expect(await forwarderPid(instance)).toBe(pid)
    })

    it('a dead forwarder answers nothing and comes back', async () => {
      await set({ allow: ['two.test'] })
      const pid = await forwarderPid(instance)
      expect(pid).toBeGreaterThan(0)
      process.kill(pid, 'SIGSTOP')
      expect(await probe(slot.netnsPath, 'resolve', [network.resolver, 'two.test', 'A', 500])).not.toBe(two)
      expect(await reach(two)).toBe('ECONNREFUSED')
      process.kill(pid, 'SIGKILL')
      await vi.waitFor(async () => expect(await resolve('two.test')).toBe(two), { timeout: 20_000, interval: 200 })
      expect(await reach(two)).toBe('connected')
      expect(await forwarderPid(instance)).not.toBe(pid)
    }, 40_000)

    it('the next sandbox on the slot has nothing of it', async () => {
      const before = egress.of({ network: slot })
      await before.set({ allow: ['two.test'] })
      expect(await resolve('two.test')).toBe(two)
      await network.renew(slot)
      expect(await reach(one)).toBe('connected')
      expect(await resolve('one.test')).toBe(one)
      await expect(before.set('none')).rejects.toThrow('the sandbox ended before its egress policy could be changed')
      expect(await reach(one)).toBe('connected')
      await expect(readFile(join(runDir, 'egress', 'v0.json'))).rejects.toThrow('ENOENT')
      const rules = await runIn(network.routerNetnsPath, 'nft', 'list', 'table', 'inet', 'mags')
      expect(rules).not.toMatch(/egress_/)
    })

    it('counts what was sent, not what was refused, and starts anew for the next sandbox', async () => {
      const counted = egress.of({ network: slot })
      const before = await counted.bytes()
      await using talk = await startProbe(slot.netnsPath, 'talk', [one, 80], 'connected')
      talk.tell('x'.repeat(50_000))
      await talk.says('x'.repeat(50_000))
      const sent = (await counted.bytes()) - before
      expect(sent).toBeGreaterThan(50_000)
      expect(sent).toBeLessThan(80_000)
      await counted.set({ allow: [one] })
      await reach(two)
      talk.tell('y')
      await talk.says('y')
      const after = await counted.bytes()
      expect(after - before - sent).toBeLessThan(2_000)
      await network.renew(slot)
      expect(await counted.bytes()).toBe(after)
      expect(await egress.of({ network: slot }).bytes()).toBe(0)
    })

    describe('what was refused', () => {
      let heard: RefusedConnection[]
      let stop: () => void
      beforeEach(async () => {
        // The slot of this test, so after its renewal.
        heard = []
        stop = egress.of({ network: slot }).watchRefused((refused) => heard.push(refused))
      })
      afterEach(() => stop())
      const hears = (wanted: RefusedConnection) => vi.waitFor(() => expect(heard).toContainEqual(wanted), { timeout: 20_000, interval: 100 })

      it('by policy, by this machine, and by name, each once', async () => {
        await set({ allow: ['one.test'] })
        await reach(two)
        await reach(two)
        await reach(outsideAddresses.metadata)
        await probe(slot.netnsPath, 'send', [two, 9000, slot.address, 'x'])
        const ping =
          'use Socket; socket(my $s, 2, 2, 1) or die $!; send($s, pack("CCnnn", 8, 0, 0, 1, 1), 0, pack_sockaddr_in(0, inet_aton($ARGV[0]))) or die $!'
        await runIn(slot.netnsPath, 'perl', '-e', ping, two)
        await resolve('evil.test')
        await hears({ protocol: 'tcp', address: two, port: 80 })
        await hears({ protocol: 'tcp', address: outsideAddresses.metadata, port: 80 })
        await hears({ protocol: 'udp', address: two, port: 9000 })
        await hears({ protocol: 'udp', address: 'evil.test', port: 53 })
        await hears({ protocol: 'other', address: two, port: 0 })
        expect(heard.length).toBe(new Set(heard.map((each) => JSON.stringify(each))).size)
      })

      it('a flood takes no room from another sandbox', async () => {
        await set('none')
        await network.renew(other)
        const otherEgress = egress.of({ network: other })
        const others: RefusedConnection[] = []
        const stopOther = otherEgress.watchRefused((refused) => others.push(refused))
        try {
          await otherEgress.set({ deny: [two] })
          const flood = `const s = require("dgram").createSocket("udp4"); let n = 0; s.on("error", () => {}); for (let p = 1000; p < 1400; p++) s.send("x", p, "${one}", () => { if (++n === 400) s.close() })`
          await runIn(slot.netnsPath, process.execPath, '-e', flood)
          await reach(two, other)
          await vi.waitFor(() => expect(others).toContainEqual({ protocol: 'tcp', address: two, port: 80 }), { timeout: 20_000, interval: 100 })
          await vi.waitFor(() => expect(heard.length).toBeGreaterThan(10), { timeout: 20_000, interval: 100 })
          expect(heard.length).toBeLessThanOrEqual(64)
          expect(others).toHaveLength(1)
        } finally {
          stopOther()
          await network.renew(other)
        }
      }, 30_000)
    })

    it('changes and renewals at once end as the last of them says', async () => {
      const use = egress.of({ network: slot })
      const changes = Array.from({ length: 20 }, (_, place) => use.set(place % 2 === 0 ? { allow: ['one.test', `11.22.33.${place}`] } : 'none'))
      await Promise.all(changes)
      expect(await reach(one)).toBe('ECONNREFUSED')
      const late = use.set({ allow: [one] }).catch(() => undefined)
      await network.renew(slot)
      await late
      expect(await reach(two)).toBe('connected')
      expect(await runIn(network.routerNetnsPath, 'nft', 'list', 'table', 'inet', 'mags')).not.toMatch(/egress_/)
    })

    it('taps go by the same rules', async () => {
      const tap = await network.createTapSlot(0)
      await egress.of({ network: tap }).set({ allow: [one], deny: ['two.test'] })
      const rules = await runIn(network.routerNetnsPath, 'nft', 'list', 'map', 'inet', 'mags', 'policies')
      expect(rules).toContain(tap.address)
      await network.free(tap)
      expect(await runIn(network.routerNetnsPath, 'nft', 'list', 'map', 'inet', 'mags', 'policies')).not.toContain(tap.address)
    })
  })

  it('of this machine: a policy for those that have none, and refusals that no policy lifts', async () => {
    const instance = newInstance()
    const runDir = await mkdtemp(join(tmpdir(), 'mags-egress-'))
    const settings = {
      instance,
      runDir,
      logger,
      dnsServers: [nameServer],
      egressDefault: { allow: ['one.test', '11.22.55.0/24'] },
      egressDeny: [{ first: 0x0b163702, prefixLength: 32 }],
    }
    const network = await openNetwork(settings)
    try {
      const slot = await network.createContainerSlot(0)
      const egress = new Egress({ network, logger })
      const reach = (address: string) => probe(slot.netnsPath, 'connect', [address, 80])
      const resolve = (name: string) => probe(slot.netnsPath, 'resolve', [network.resolver, name, 'A'])
      await vi.waitFor(async () => expect(await resolve('one.test')).toBe(one), { timeout: 10_000, interval: 100 })
      expect(await resolve('two.test')).toBe('EREFUSED')
      expect(await reach(one)).toBe('connected')
      expect(await reach(outsideAddresses.public)).toBe('ECONNREFUSED')
      expect(await reach(two)).toBe('ECONNREFUSED')
      await egress.of({ network: slot }).set({})
      expect(await reach(outsideAddresses.public)).toBe('connected')
      expect(await reach(two)).toBe('ECONNREFUSED')
      expect(await resolve('two.test')).toBe(two)
      await expect(egress.of({ network: slot }).set({ allow: [two] })).rejects.toThrow('cannot be lifted by a job')
    } finally {
      await network.close({ keep: false })
      expect(await findNetworkLeaks(instance, runDir)).toEqual([])
      await rm(runDir, { recursive: true })
    }
  })

  it('a killed daemon leaves policies in force, no names, and no forwarder; the next one has all', async () => {
    const instance = newInstance()
    const runDir = await mkdtemp(join(tmpdir(), 'mags-egress-'))
    const file = fileURLToPath(new URL('../kit/egress-daemon.ts', import.meta.url))
    const policies = [{ allow: ['two.test'] }, 'none'].map((policy) => JSON.stringify(policy))
    const daemon = startIn('host', [
      'unshare',
      '--mount',
      '--propagation',
      'private',
      process.execPath,
      '--conditions=source',
      file,
      instance,
      runDir,
      nameServer,
      ...policies,
    ])
    await daemon.says('ready')
    await vi.waitFor(() => expect(daemon.lines.length).toBe(2), 20_000)
    const pids = (daemon.lines[1] ?? '').split(' ').map(Number)
    try {
      const [named = '', none = ''] = pids.map((pid) => `/proc/${pid}/ns/net`)
      expect(await probe(named, 'resolve', ['10.213.0.1', 'two.test', 'A'])).toBe(two)
      expect(await forwarderPid(instance)).toBeGreaterThan(0)
      await daemon[Symbol.asyncDispose]()
      await vi.waitFor(async () => expect(await forwarderPid(instance)).toBe(0), 10_000)
      expect(await probe(named, 'resolve', ['10.213.0.1', 'two.test', 'A'])).toBe('ECONNREFUSED')
      expect(await probe(named, 'connect', [two, 80])).toBe('connected')
      expect(await probe(named, 'connect', [one, 80])).toBe('ECONNREFUSED')
      expect(await probe(none, 'connect', [one, 80])).toBe('ECONNREFUSED')

      const next = await openNetwork({ instance, runDir, logger, dnsServers: [nameServer] })
      try {
        const slots = await Promise.all(pids.map((pid, index) => next.adoptContainerSlot(index, pid)))
        await vi.waitFor(async () => expect(await probe(named, 'resolve', ['10.213.0.1', 'two.test', 'A'])).toBe(two), { timeout: 10_000, interval: 200 })
        expect(await probe(named, 'connect', [one, 80])).toBe('ECONNREFUSED')
        expect(await probe(none, 'connect', [one, 80])).toBe('ECONNREFUSED')
        await new Egress({ network: next, logger }).of({ network: slots[1] }).set({})
        expect(await probe(none, 'connect', [one, 80])).toBe('connected')
      } finally {
        await next.close({ keep: false })
      }
      expect(await findNetworkLeaks(instance, runDir)).toEqual([])
    } finally {
      for (const pid of pids) process.kill(pid, 'SIGKILL')
      await rm(runDir, { recursive: true })
    }
  }, 60_000)

  it('a policy whose record is lost becomes none', async () => {
    const instance = newInstance()
    const runDir = await mkdtemp(join(tmpdir(), 'mags-egress-'))
    const settings = { instance, runDir, logger, dnsServers: [nameServer] }
    const first = await openNetwork(settings)
    const slot = await first.createContainerSlot(0)
    await using sandbox = startIn(slot.netnsPath, ['sleep', '600'])
    await new Egress({ network: first, logger }).of({ network: slot }).set({ allow: [one] })
    expect(await probe(slot.netnsPath, 'connect', [one, 80])).toBe('connected')
    await first.close({ keep: true })
    await rm(join(runDir, 'egress', 'v0.json'))
    const second = await openNetwork(settings)
    try {
      const adopted = await second.adoptContainerSlot(0, sandbox.pid)
      expect(await probe(adopted?.netnsPath ?? '', 'connect', [one, 80])).toBe('ECONNREFUSED')
    } finally {
      await second.close({ keep: false })
      await rm(runDir, { recursive: true })
    }
  })

  it('a new daemon keeps policies, counters and what names have opened', async () => {
    const instance = newInstance()
    const runDir = await mkdtemp(join(tmpdir(), 'mags-egress-'))
    const settings = { instance, runDir, logger, dnsServers: [nameServer] }
    const first = await openNetwork(settings)
    const slots = await first.createContainerSlots([0, 1, 2])
    const [named, none, free] = slots as [Slot, Slot, Slot]
    const sandboxes = slots.map((slot) => startIn(slot.netnsPath, ['sleep', '600']))
    try {
      const before = new Egress({ network: first, logger })
      await before.of({ network: named }).set({ allow: ['two.test'] })
      await before.of({ network: none }).set('none')
      expect(await probe(named.netnsPath, 'resolve', [first.resolver, 'two.test', 'A'])).toBe(two)
      await using talk = await startProbe(named.netnsPath, 'talk', [two, 80], 'connected')
      talk.tell('x'.repeat(10_000))
      await talk.says('x'.repeat(10_000))
      const sent = await before.of({ network: named }).bytes()
      await first.close({ keep: true })
      expect(await forwarderPid(instance)).toBe(0)

      const second = await openNetwork(settings)
      try {
        const adopted = await Promise.all(slots.map((_, index) => second.adoptContainerSlot(index, sandboxes[index]?.pid ?? 0)))
        await second.freeUnadopted()
        const after = new Egress({ network: second, logger })
        const [a, b, c] = adopted.map((slot) => slot?.netnsPath ?? '') as [string, string, string]
        expect(await probe(a, 'connect', [two, 80])).toBe('connected')
        expect(await probe(a, 'connect', [one, 80])).toBe('ECONNREFUSED')
        talk.tell('again')
        await talk.says('again')
        expect(await probe(b, 'connect', [one, 80])).toBe('ECONNREFUSED')
        expect(await probe(c, 'connect', [one, 80])).toBe('connected')
        await vi.waitFor(async () => expect(await probe(a, 'resolve', [second.resolver, 'two.test', 'A'])).toBe(two), { timeout: 10_000, interval: 200 })
        expect(await probe(a, 'resolve', [second.resolver, 'one.test', 'A'])).toBe('EREFUSED')
        const bytes = await after.of({ network: adopted[0] }).bytes()
        expect(bytes).toBeGreaterThanOrEqual(sent)
        await after.of({ network: adopted[1] }).set({ allow: [one] })
        expect(await probe(b, 'connect', [one, 80])).toBe('connected')
        expect(free.address).toBe(adopted[2]?.address)
      } finally {
        await second.close({ keep: false })
      }
      expect(await findNetworkLeaks(instance, runDir)).toEqual([])
    } finally {
      for (const sandbox of sandboxes) await sandbox[Symbol.asyncDispose]()
      await rm(runDir, { recursive: true })
    }
  }, 40_000)
})

/** Process id of an instance's name forwarder; 0 when there is none. */
async function forwarderPid(instance: string): Promise<number> {
  for (const pid of (await readdir('/proc')).filter((name) => /^\d+$/.test(name))) {
    const command = await readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => '')
    if (command.includes('run-forwarder') && command.includes(`\0mags-${instance}-names\0`)) return Number(pid)
  }
  return 0
}

const systemDir = process.env.MAGS_SYSTEM_DIR ?? '/var/lib/mags'
const needs = ['images/debian-12/current/root.erofs', 'kernels/current/vmlinux'].map((path) => join(systemDir, path)).find((path) => !existsSync(path))
const ableToRun = canTest('MAGS_REQUIRE_VM', notRoot ?? (needs === undefined ? undefined : `there is no ${needs}; \`./mags setup\` makes it`))

/** Whole sandboxes of both kinds, as jobs have them. */
describe.skipIf(!ableToRun)('egress of a job', () => {
  const held = new AsyncDisposableStack()
  const instance = newInstance()
  const runDir = `/run/mags/${instance}`
  const native = fileURLToPath(new URL('../../native/build/', import.meta.url))
  let host: HostApi

  beforeAll(async () => {
    const world = held.use(await openOutsideWorld())
    for (const address of [one, two]) {
      await runIn(world.netnsPath, 'ip', 'addr', 'add', `${address}/32`, 'dev', 'eth0')
      await runIn('host', 'ip', 'route', 'add', `${address}/32`, 'dev', 'mgtest0')
    }
    held.use(await startProbe(world.netnsPath, 'listen', ['0.0.0.0', 80]))
    const names = held.use(
      startIn(world.netnsPath, [process.execPath, fileURLToPath(new URL('../kit/name-server.ts', import.meta.url)), outsideAddresses.public, '5300']),
    )
    await names.says('ready')
    names.tell(JSON.stringify(zone))
    await names.says('zone 1')
    const dataDir = await mkdtemp('/var/tmp/mags-egress-')
    held.defer(() => rm(dataDir, { recursive: true, force: true }))
    held.defer(() => rm(runDir, { recursive: true, force: true }))
    host = await openHost({
      instance,
      systemDir,
      dataDir,
      runDir,
      agentBinary: join(native, 'agent'),
      mounterBinary: join(native, 'mounter'),
      isolation: 'auto',
      ociRuntime: 'crun',
      store: { place: { kind: 'folder', folder: join(dataDir, 'objects') } },
      defaults: { image: 'debian-12', vcpus: 1, memoryMb: 256, diskGb: 2 },
      pool: { minSize: 0, maxSize: 2, idleTtlMs: 0 },
      dnsServers: [nameServer],
      logger,
    })
    held.defer(() => host.close({ keepPersistent: false }))
    await host.settle()
  }, 120_000)
  afterAll(() => held.disposeAsync(), 60_000)

  for (const isolation of ['container', 'vm'] as const) {
    it(`${isolation}: in force before the script starts, changed while it runs, heard of and counted`, async () => {
      const lines: string[] = []
      const says = (wanted: string) => vi.waitFor(() => expect(lines.join('')).toContain(wanted), { timeout: 30_000, interval: 50 })
      const lease = await host.acquire({
        image: 'debian-12',
        isolation,
        vcpus: 1,
        memoryMb: 256,
        diskGb: 2,
        persistent: false,
        egress: { allow: ['one.test'] },
      })
      try {
        const reach = 'reach() { if timeout 5 bash -c "exec 3<>/dev/tcp/$1/80" 2>/dev/null; then echo "$2 yes"; else echo "$2 no"; fi; }'
        const script = `${reach}; reach one.test first; reach two.test second; reach ${two} third; while [ ! -e /tmp/go ]; do sleep 0.1; done; reach ${two} fourth; reach one.test fifth`
        const running = await lease.run({ script, environment: {} }, async ({ source, bytes }) => {
          if (source === 'stdout') lines.push(Buffer.from(bytes).toString())
          return undefined
        })
        const heard: RefusedConnection[] = []
        const stop = running.watchRefused((refused) => heard.push(refused))
        await says('third no')
        expect(lines.join('')).toBe('first yes\nsecond no\nthird no\n')
        await vi.waitFor(() => expect(heard).toContainEqual({ protocol: 'tcp', address: two, port: 80 }), { timeout: 20_000 })
        await running.setEgress({ allow: [two] })
        await running.exec({ command: ['touch', '/tmp/go'], timeoutMs: 10_000 }, () => undefined)
        await running.exited
        await says('fifth no')
        expect(lines.join('')).toContain('fourth yes\nfifth no\n')
        expect(await running.egressBytes()).toBeGreaterThan(100)
        stop()
      } finally {
        await lease.release()
      }
    }, 120_000)
  }

  it('refuses what cannot be kept before anything is taken', async () => {
    const spec = { image: 'debian-12', isolation: 'container', vcpus: 1, memoryMb: 256, diskGb: 2, persistent: false } as const
    await expect(host.acquire({ ...spec, egress: { allow: ['192.168.0.0/16'] } })).rejects.toThrow('cannot be lifted by a job')
    expect(host.poolStatus().busy).toBe(0)
  })
})
