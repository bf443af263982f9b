import { createServer, type Server } from 'node:net'
import { networkInterfaces } from 'node:os'
import { Mags } from '@mags/sdk'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { startDaemon, type TestDaemon } from '../kit/daemon.ts'
import { describeLane } from '../kit/describe-lane.ts'
import { isRunning, untilStatus } from '../kit/jobs.ts'
import { canTest, notRoot } from '../kit/require.ts'

const listen =
  'perl -MIO::Socket::INET -e \'my $s = IO::Socket::INET->new(Listen => 9, LocalPort => 8080, ReuseAddr => 1) or die; print "up\\n"; $| = 1; while (1) { $s->accept }\''

/**
 * What a job can reach from a sandbox of either kind, through the whole daemon. The rules themselves are tested one by one in network.test.ts; here it is shown that both drivers are really behind
 * them, and that what is allowed works: names, the internet, packages.
 */
for (const { isolation, require, slow } of [
  { isolation: 'container', require: 'MAGS_REQUIRE_CONTAINER', slow: 1 },
  { isolation: 'vm', require: 'MAGS_REQUIRE_VM', slow: 6 },
] as const) {
  const tests = () => {
    let daemon: TestDaemon
    let mags: Mags
    let host: Server
    let hostPort: number
    let id: string
    let neighbour: string

    beforeAll(async () => {
      host = createServer((socket) => socket.end('host'))
      await new Promise<void>((resolve) => host.listen(0, '0.0.0.0', resolve))
      const address = host.address()
      hostPort = typeof address === 'object' && address !== null ? address.port : 0
      daemon = await startDaemon({ MAGS_ISOLATION: isolation, MAGS_POOL_MIN: '1' })
      mags = new Mags({ apiUrl: daemon.url, apiToken: daemon.token })
      const started = await Promise.all([listen, 'sleep infinity'].map((script) => mags.run(script, { isolation, persistent: true })))
      const running = await Promise.all(started.map(({ requestId }) => untilStatus(mags, requestId, isRunning)))
      expect(running.map((status) => status.isolation)).toEqual(
        isolation === 'vm' ? [expect.stringMatching(/vm|kvm/), expect.anything()] : ['container', 'container'],
      )
      ;[neighbour, id] = started.map(({ requestId }) => requestId) as [string, string]
    })

    afterAll(async () => {
      await daemon?.[Symbol.asyncDispose]()
      host?.close()
    })

    const run = async (command: string) => (await mags.exec(id, command, { timeoutSeconds: 60 * slow })).stdout
    const reach = (address: string, port: number) =>
      run(`timeout ${5 * slow} bash -c 'exec 3<>/dev/tcp/${address}/${port}' 2>/dev/null && echo REACHED || echo refused`)

    it('neither the loopback nor any address of the host, though a listener is there', async () => {
      const addresses = Object.values(networkInterfaces()).flatMap((list) =>
        (list ?? []).filter(({ family }) => family === 'IPv4').map(({ address }) => address),
      )
      const outcomes = await Promise.all(addresses.map(async (address) => [address, await reach(address, hostPort)]))
      expect(outcomes).toEqual(addresses.map((address) => [address, 'refused\n']))
    })

    it('not the metadata address, not private ranges, not IPv6', async () => {
      const addresses = ['169.254.169.254', '10.0.0.1', '192.168.1.1', '172.16.0.1', '100.64.0.1']
      const outcomes = await Promise.all(addresses.map(async (address) => [address, await reach(address, 80)]))
      expect(outcomes).toEqual(addresses.map((address) => [address, 'refused\n']))
      expect(await run('ip -6 route show default; ip -6 addr show dev eth0 scope global')).toBe('')
    })

    it('not another sandbox, though a server listens there', async () => {
      const address = (await mags.exec(neighbour, "hostname -I | cut -d' ' -f1")).stdout.trim()
      expect(address).toMatch(/^\d+\.\d+\.\d+\.\d+$/)
      expect((await mags.exec(neighbour, `timeout ${5 * slow} bash -c 'exec 3<>/dev/tcp/${address}/8080' && echo REACHED`)).stdout).toBe('REACHED\n')
      expect(await reach(address, 8080)).toBe('refused\n')
    })

    it('not the router, but for names', async () => {
      const router = (await run("ip route show default | cut -d' ' -f3")).trim()
      expect(await reach(router, 22)).toBe('refused\n')
      expect(await reach(router, hostPort)).toBe('refused\n')
      expect(await run('grep nameserver /etc/resolv.conf')).toBe(`nameserver ${router}\n`)
    })

    it(
      'a package source: apt-get install works',
      async () => {
        const { stdout, stderr, exitCode } = await mags.exec(id, 'apt-get update -qq && apt-get install -y -qq hello >/dev/null && hello', {
          timeoutSeconds: 60 * slow,
        })
        expect([exitCode, stdout, exitCode === 0 ? '' : stderr]).toEqual([0, 'Hello, world!\n', ''])
      },
      60_000 * slow,
    )

    it('sees nothing of another job', async () => {
      const secret = `secret-${crypto.randomUUID()}`
      const other = await mags.run(`echo ${secret} > /root/secret; sleep infinity`, { isolation, persistent: true, environment: { MAGS_SECRET: secret } })
      await untilStatus(mags, other.requestId, isRunning)
      const half = secret.slice(0, 20)
      const found = await run(
        `grep -rs -e ${half} /proc/[0-9]*/environ /root /tmp /run /var/tmp 2>/dev/null | grep -v ^/proc/self | grep -c -e "${secret.slice(20)}"`,
      )
      expect(found.trim()).toBe('0')
      await mags.stop(other.requestId)
    })
  }
  describeLane(`from a ${isolation}`, () => describe.runIf(canTest(require, notRoot))('with the whole daemon', tests))
}
