import { mkdtemp, rm } from 'node:fs/promises'
import { request } from 'node:http'
import { type AddressInfo, createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { run } from '../run.ts'
import { isPublicAddress, openRegistryWay } from './registry-way.ts'

describe('the way to registries', () => {
  let dir: string
  beforeEach(async () => {
    dir = await mkdtemp(join(tmpdir(), 'mags-way-'))
  })
  afterEach(async () => await rm(dir, { recursive: true, force: true }))

  it.each([
    ['a status that there is not', 'HTTP/1.1 099 X\r\nContent-Length: 0\r\n\r\n', undefined],
    ['trailers that cannot be', 'HTTP/1.1 200 OK\r\nTrailer: x\r\nContent-Length: 2\r\n\r\nab', '200 ab'],
    ['another protocol', 'HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\nab', undefined],
    ['less than it said', 'HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab', undefined],
    ['no HTTP', 'garbage\r\n\r\n', undefined],
    ['an answer', 'HTTP/1.1 404 No\r\nContent-Length: 2\r\n\r\nno', '404 no'],
  ])('outlives a registry that gives %s', async (_what, bytes, expected) => {
    await using undo = new AsyncDisposableStack()
    const registry = createServer((socket) => {
      socket.on('error', () => undefined)
      socket.once('data', () => socket.end(bytes))
    })
    await new Promise<void>((resolve) => registry.listen(0, '127.0.0.1', resolve))
    undo.defer(() => void registry.close())
    const socketPath = join(dir, 'way')
    undo.use(await openRegistryWay(socketPath, process.getuid?.() ?? 0, { isAllowed: () => true }))
    const path = `http://127.0.0.1:${(registry.address() as AddressInfo).port}/`
    const answer = new Promise<string>((resolve, reject) => {
      request({ socketPath, path, agent: false }, (incoming) => {
        incoming.toArray().then((parts) => resolve(`${incoming.statusCode} ${Buffer.concat(parts)}`), reject)
      })
        .on('error', reject)
        .end()
    })
    expect(await answer.catch(() => undefined)).toBe(expected)
  })
})

describe('an address a registry may be at', () => {
  it.each([
    '127.0.0.1',
    '10.0.0.1',
    '169.254.169.254',
    '100.64.0.1',
    '0.0.0.0',
    '::1',
    'fe80::1%eth0',
    'fd00::1',
    '::ffff:127.0.0.1',
    '64:ff9b::7f00:1',
    '2002:7f00:1::',
  ])('is not %s', (address) => expect(isPublicAddress(address)).toBe(false))

  it('is public, but none of this machine, where no firewall is in between', async () => {
    expect([isPublicAddress('8.8.4.4'), isPublicAddress('2606:4700::1111')]).toEqual([true, true])
    if (process.getuid?.() !== 0) return
    const program = `import { isPublicAddress } from ${JSON.stringify(import.meta.resolve('./registry-way.ts'))}
console.log(['8.8.4.4', '::ffff:8.8.4.4', '8.8.4.5'].map(isPublicAddress).join())`
    const script = 'ip link set lo up && ip addr add 8.8.4.4/32 dev lo && exec "$0" --input-type=module -e "$1"'
    const { stdout } = await run('unshare', ['--net', 'sh', '-c', script, process.execPath, program])
    expect(stdout.trim()).toBe('false,false,true')
  })
})
