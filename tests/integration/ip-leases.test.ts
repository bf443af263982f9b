import { randomBytes } from 'node:crypto'
import { EventEmitter, once } from 'node:events'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { HostApi, RunningSandbox, SandboxLease, SandboxSpec } from '@mags/protocol'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { probe, runIn, startProbe } from '../kit/namespace-program.ts'
import { outsideAddresses } from '../kit/outside-world.ts'
import { openOutsideWorld6, outside6 } from '../kit/outside-world6.ts'
import { canMakeSandboxes, openRealHost, runDirOf } from '../kit/real-host.ts'

const refused = ['ECONNREFUSED', 'EHOSTUNREACH', 'ENETUNREACH', 'timeout']
const addressPrefixes = ['11.77.0.8/29', '2001:db8:77::/64']
const isolations = [
  { isolation: 'container', addresses: { ipv4: '11.77.0.9', ipv6: '2001:db8:77::9' } },
  { isolation: 'vm', addresses: { ipv4: '11.77.0.10', ipv6: '2001:db8:77::a' } },
] as const

/** Says who has connected. */
const serverOn = (address: string) => `exec perl -MIO::Socket::IP -e '
my $s = IO::Socket::IP->new(LocalHost => "${address}", LocalPort => 8080, Listen => 9, ReuseAddr => 1) or die $@;
$| = 1; print "ready\\n";
while (my $c = $s->accept) { print "from ", $c->peerhost =~ s/^::ffff://r, "\\n"; close $c }'`

/** A sandbox over the real host: from its start to its end, and over a restart of the daemon. */
describe.skipIf(!canMakeSandboxes())('addresses of sandboxes', { timeout: 120_000 }, () => {
  const held = new AsyncDisposableStack()
  const instance = randomBytes(3).toString('hex')
  let dataDir: string
  let host: HostApi
  let outside: string

  beforeAll(async () => {
    outside = held.use(await openOutsideWorld6()).netnsPath
    dataDir = await mkdtemp(join(tmpdir(), 'mags-leases-'))
    held.defer(() => rm(dataDir, { recursive: true, force: true }))
    held.defer(() => rm(runDirOf(instance), { recursive: true, force: true }))
    host = await openRealHost({ instance, dataDir, addressPrefixes })
    held.defer(() => host.close({ keepPersistent: false }))
    await host.settle()
  }, 120_000)
  afterAll(() => held.disposeAsync(), 60_000)

  const specOf = ({ isolation, addresses }: (typeof isolations)[number]): SandboxSpec => ({
    image: 'debian-12',
    isolation,
    vcpus: 1,
    memoryMb: 256,
    diskGb: 2,
    persistent: true,
    addresses,
  })
  async function run(running: RunningSandbox, command: string): Promise<string> {
    let text = ''
    await running.exec({ command: ['/bin/bash', '-c', command], timeoutMs: 30_000 }, (_source, bytes) => {
      text += Buffer.from(bytes).toString()
    })
    return text.trim()
  }
  /** Of its interface, from inside. */
  async function addresses6(running: RunningSandbox): Promise<string[]> {
    const shown = JSON.parse(await run(running, 'ip -j -6 addr show dev eth0')) as { addr_info?: { local: string }[] }[]
    return shown.flatMap(({ addr_info = [] }) => addr_info.map(({ local }) => local))
  }
  const all = (addresses: { readonly ipv4?: string; readonly ipv6?: string }) => Object.values(addresses)

  it('are those of the operator', () => {
    expect(host.capabilities().addressPrefixes).toEqual(addressPrefixes)
  })

  it.each(isolations)('$isolation: reached and seen with them, from the first line of its script to its end', async (each) => {
    await using world = await startProbe(outside, 'listen', ['::', 80])
    const lease = await host.acquire(specOf(each))
    let text = ''
    const { promise: ready, resolve } = Promise.withResolvers<void>()
    // Outgoing first: the address counts before the script starts.
    const call = `exec 3<>/dev/tcp/${outsideAddresses.public}/80; exec 3>&-; exec 3<>/dev/tcp/${outside6}/80`
    let running = await lease.run({ script: `bash -c '${call}'\n${serverOn('::')}`, environment: {} }, async ({ bytes }) => {
      text += Buffer.from(bytes).toString()
      if (text.includes('ready')) resolve()
      return undefined
    })
    await Promise.race([ready, running.exited.then((exit) => Promise.reject(new Error(`ended: ${JSON.stringify(exit)} ${text}`)))])
    for (const address of all(each.addresses)) await world.says(`from ${address}`)
    const reachable = async () => {
      for (const address of all(each.addresses)) expect(await probe(outside, 'connect', [address, 8080]), address).toBe('connected')
    }
    await reachable()
    expect(await run(running, `exec 3<>/dev/tcp/${outsideAddresses.metadata}/80 && echo in`)).not.toContain('in\n')

    await host.close({ keepPersistent: true })
    host = await openRealHost({ instance, dataDir, addressPrefixes })
    const adopted = await host.adopt(running.sandboxId, { stdout: text.length, stderr: 0 }, async () => undefined)
    expect(adopted).toBeDefined()
    if (adopted !== undefined) running = adopted
    await host.settle()
    await reachable()
    await running.sleep()
    await running.wake()
    await reachable()
    await running.sleep()
    if (await running.hibernate()) {
      await host.close({ keepPersistent: true })
      host = await openRealHost({ instance, dataDir, addressPrefixes })
      const slept = await host.adopt(running.sandboxId, { stdout: text.length, stderr: 0, asleep: true }, async () => undefined)
      expect(slept).toBeDefined()
      if (slept !== undefined) running = slept
      await host.settle()
    }
    await running.wake()
    await reachable()
    expect(await addresses6(running)).toEqual([each.addresses.ipv6])
    await running.destroy()
    for (const address of all(each.addresses)) expect(refused).toContain(await probe(outside, 'try', [address, 8080]))
    expect(await runIn('host', 'nft', 'list', 'set', 'inet', `mags_${instance}`, 'leased')).not.toContain(each.addresses.ipv4)
  })

  it('a copy of a virtual machine takes none along, and gets its own', async () => {
    const spec = specOf(isolations[1])
    const { addresses: _, ...without } = spec
    const others = { ipv4: '11.77.0.11', ipv6: '2001:db8:77::b' }
    const start = async (lease: SandboxLease, script: string) => {
      const seen = new EventEmitter<{ output: [] }>()
      let text = ''
      const running = await lease.run({ script, environment: {} }, async ({ bytes }) => {
        text += Buffer.from(bytes).toString()
        seen.emit('output')
        return undefined
      })
      const says = async (words: string) => {
        while (!text.includes(words)) await once(seen, 'output')
      }
      return { running, says, text: () => text }
    }
    const original = await start(await host.acquire(spec), serverOn('::'))
    await original.says('ready')
    const bare = await start((await original.running.fork(without)).lease, '')
    const copy = await start((await original.running.fork({ ...spec, addresses: others })).lease, '')
    expect(await addresses6(original.running)).toEqual([spec.addresses?.ipv6])
    expect(await addresses6(bare.running)).toEqual([])
    expect(await addresses6(copy.running)).toEqual([others.ipv6])
    for (const address of [...all(spec.addresses ?? {}), ...all(others)]) expect(await probe(outside, 'connect', [address, 8080]), address).toBe('connected')
    await copy.says(`from ${outside6}`)
    await original.says(`from ${outside6}`)
    await using world = await startProbe(outside, 'listen', ['::', 80])
    expect(await run(bare.running, `timeout 5 bash -c 'exec 3<>/dev/tcp/${outside6}/80' && echo in`)).not.toMatch(/^in$/m)
    await run(copy.running, `exec 3<>/dev/tcp/${outside6}/80`)
    await world.says(`from ${others.ipv6}`)
    expect(world.lines).toEqual(['ready', `from ${others.ipv6}`])
    expect(bare.text()).not.toContain('from')
    // And over a copy of the copy, of which the first knows nothing.
    const again = await start((await copy.running.fork(without)).lease, '')
    expect(await addresses6(again.running)).toEqual([])
    await Promise.all([original, bare, copy, again].map(({ running }) => running.destroy()))
    const outcomes = await Promise.all([...all(spec.addresses ?? {}), ...all(others)].map((address) => probe(outside, 'try', [address, 8080])))
    for (const outcome of outcomes) expect(refused).toContain(outcome)
  })
})
