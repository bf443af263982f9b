import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest'
import { curl } from '../kit/curl.ts'
import { type DaemonPlace, makePlace, startDaemon, type TestDaemon } from '../kit/daemon.ts'
import { leftOf } from '../kit/leaks.ts'
import { probe, runIn } from '../kit/namespace-program.ts'
import { openOutsideWorld6 } from '../kit/outside-world6.ts'
import { canMakeSandboxes } from '../kit/real-host.ts'
import { canTest, notRoot } from '../kit/require.ts'

type Json = Record<string, unknown>

const plain = { MAGS_ISOLATION: 'container', MAGS_POOL_MIN: '1', MAGS_GATEWAY_PORT: '0' }
/** Two addresses of IPv4. */
const settings = { ...plain, MAGS_IP_PREFIXES: '11.76.0.8/30,2001:db8:76::/64' }
const refused = ['ECONNREFUSED', 'EHOSTUNREACH', 'ENETUNREACH', 'timeout']
const script = `exec perl -MIO::Socket::IP -e '
my $s = IO::Socket::IP->new(LocalHost => "::", LocalPort => 8080, Listen => 9, ReuseAddr => 1) or die $@;
while (my $c = $s->accept) { close $c }'`

describe.runIf(canTest('MAGS_REQUIRE_CONTAINER', notRoot))('a job with ip_lease', () => {
  const held = new AsyncDisposableStack()
  let outside: string
  let place: DaemonPlace & AsyncDisposable
  let daemon: TestDaemon

  beforeAll(async () => {
    outside = held.use(await openOutsideWorld6()).netnsPath
    place = await makePlace()
    daemon = await startDaemon(settings, place)
  }, 240_000)
  afterAll(async () => {
    await daemon[Symbol.asyncDispose]()
    const left = leftOf(daemon)
    await place[Symbol.asyncDispose]()
    await held.disposeAsync()
    expect(left).toEqual([])
    expect(await runIn('host', 'ip', 'route', 'show')).not.toContain('11.76.')
    expect(await runIn('host', 'ip', '-6', 'route', 'show')).not.toContain('2001:db8:76:')
  }, 120_000)

  const send = async (method: string, path: string, body?: unknown) => {
    const data = body === undefined ? [] : ['-H', 'Content-Type: application/json', '-d', JSON.stringify(body)]
    const answer = await curl('-X', method, `${daemon.url}/api/v1${path}`, '-H', `Authorization: Bearer ${daemon.token}`, ...data)
    return { status: answer.status, body: JSON.parse(answer.body) as Json }
  }
  const submit = (change: Json = {}) => send('POST', '/jobs', { name: 'leased', type: 'inline', script, ip_lease: true, persist: true, ...change })
  const addressesOf = async (id: string) => {
    const { ipv4_address, ipv6_address } = (await send('GET', `/jobs/${id}/vm-info`)).body
    return [String(ipv4_address), String(ipv6_address)]
  }
  /** In vain while nobody listens there yet, so each waits only shortly. */
  const connect = (address: string) => probe(outside, 'try', [address, 8080])
  const reachable = (address: string) => probe(outside, 'connect', [address, 8080])

  it('is reached by its addresses, also after a crash of the server, until its end', { timeout: 180_000 }, async () => {
    const first = String((await submit()).body.request_id)
    const second = String((await submit()).body.request_id)
    const addresses = await addressesOf(first)
    expect(addresses).toEqual(['11.76.0.9', expect.stringMatching(/^2001:db8:76:/)])
    expect((await addressesOf(second))[0]).toBe('11.76.0.10')
    for (const address of addresses) await vi.waitFor(async () => expect(await connect(address)).toBe('connected'), { timeout: 30_000 })
    const third = await submit()
    expect(third).toMatchObject({ status: 503, body: { code: 'no_capacity' } })

    await daemon.crash()
    for (const address of addresses) expect(await reachable(address)).toBe('connected')
    daemon = await startDaemon(settings, place)
    expect(await addressesOf(first)).toEqual(addresses)
    for (const address of addresses) expect(await reachable(address)).toBe('connected')

    expect((await send('POST', `/mags-jobs/${first}/stop`)).status).toBeLessThan(300)
    await vi.waitFor(async () => expect(await addressesOf(first)).not.toContain('11.76.0.9'), { timeout: 30_000 })
    for (const address of addresses) await vi.waitFor(async () => expect(refused).toContain(await connect(address)), { timeout: 30_000 })
    const again = String((await submit()).body.request_id)
    const [ipv4 = '', ipv6 = ''] = await addressesOf(again)
    expect(ipv4).toBe('11.76.0.9')
    expect(ipv6).not.toBe(addresses[1])
    await vi.waitFor(async () => expect(await connect(ipv4)).toBe('connected'), { timeout: 30_000 })
    for (const id of [second, again]) await send('POST', `/mags-jobs/${id}/stop`)
  })

  it.runIf(canMakeSandboxes())('in a virtual machine has both, too', { timeout: 240_000 }, async () => {
    await daemon.stop()
    daemon = await startDaemon({ ...settings, MAGS_ISOLATION: 'vm', MAGS_POOL_MIN: '0' }, place)
    const id = String((await submit()).body.request_id)
    const addresses = await addressesOf(id)
    expect(addresses).toEqual([expect.stringMatching(/^11\.76\.0\./), expect.stringMatching(/^2001:db8:76:/)])
    for (const address of addresses) await vi.waitFor(async () => expect(await connect(address)).toBe('connected'), { timeout: 120_000 })
    expect((await send('POST', `/mags-jobs/${id}/stop`)).status).toBeLessThan(300)
    for (const address of addresses) await vi.waitFor(async () => expect(refused).toContain(await connect(address)), { timeout: 30_000 })
  })

  it('is refused with 400 where no prefix is set', { timeout: 120_000 }, async () => {
    await daemon.stop()
    daemon = await startDaemon(plain, place)
    expect(await submit()).toMatchObject({ status: 400, body: { code: 'not_available', error: expect.stringContaining('MAGS_IP_PREFIXES') } })
  })
})
