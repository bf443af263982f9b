import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { findDnsUpstreams } from './dns-upstreams.ts'

describe('findDnsUpstreams', () => {
  let dir: string
  beforeAll(async () => {
    dir = await mkdtemp(join(tmpdir(), 'mags-dns-'))
  })
  afterAll(() => rm(dir, { recursive: true }))

  const file = async (name: string, text: string) => {
    const path = join(dir, name)
    await writeFile(path, text)
    return path
  }

  it('takes those given as they are', async () => {
    expect(await findDnsUpstreams(['1.1.1.1', ' 10.0.0.53#5353'])).toEqual([
      { address: '1.1.1.1', port: 53 },
      { address: '10.0.0.53', port: 5353 },
    ])
  })

  it('passes over the stub of systemd-resolved, IPv6 and comments', async () => {
    const stub = await file('stub', 'nameserver 127.0.0.53\noptions edns0\n')
    const real = await file('real', '# nameserver 9.9.9.9\nnameserver fd00::1\nnameserver 192.168.1.1\nnameserver 1.1.1.1\n')
    expect(await findDnsUpstreams([], [stub, real])).toEqual([
      { address: '192.168.1.1', port: 53 },
      { address: '1.1.1.1', port: 53 },
    ])
  })

  it('says what to set when there is none', async () => {
    const stub = await file('only-stub', 'nameserver 127.0.0.1\nnameserver ::1\n')
    await expect(findDnsUpstreams([], [stub, join(dir, 'missing')])).rejects.toThrow('MAGS_DNS_SERVERS')
  })

  it.each(['127.0.0.1', 'dns.example', '1.1.1.1#0', '1.1.1.1#x', '1.1.1.1#53#54', '1.1.1.0/24'])('refuses %j', async (text) => {
    await expect(findDnsUpstreams([text])).rejects.toMatchObject({ code: 'bad_request' })
  })
})
