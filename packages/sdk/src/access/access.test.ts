import { describe, expect, it } from 'vitest'
import { Mags } from '../mags.ts'
import { sendJson, startStub } from '../testing/start-stub.ts'

const ssh = { success: true, access_type: 'ssh_proxy', ssh_host: 'h', ssh_port: 40_000, ssh_private_key: 'k' }
const url = { success: true, access_type: 'http_proxy', url: 'http://a.apps.localhost:4780', subdomain: 'a', ipv6_address: null, port: 3000 }

describe('access', () => {
  it('is asked for as the API has it', async () => {
    await using stub = await startStub((request, response) => sendJson(response, 200, JSON.parse(request.body || '{}').port === 22 ? ssh : url))
    const mags = new Mags({ apiUrl: stub.apiUrl, apiToken: 'secret' })
    expect((await mags.ssh('web')).sshPrivateKey).toBe('k')
    expect(await mags.url('web')).toBe(url.url)
    expect((await mags.enableAccess('web', 3000, { visibility: 'token' })).accessType).toBe('http_proxy')
    await mags.sleep('web')
    await mags.sleep('web', { release: true })
    await mags.wake('web')
    await mags.fork('web', { name: 'copy', workspaceId: 'ws' })
    await mags.updateJob('web', { noSleep: true, egress: 'none', port: 9000 })
    expect(
      stub.requests.map(({ method, url: { pathname }, body }) => [`${method} ${pathname.slice('/api/v1/mags-jobs/web'.length)}`, JSON.parse(body)]),
    ).toEqual([
      ['POST /access', { port: 22 }],
      ['POST /access', { port: 8080 }],
      ['POST /access', { port: 3000, visibility: 'token' }],
      ['POST /sleep', {}],
      ['POST /sleep', { release: true }],
      ['POST /wake', {}],
      ['POST /fork', { name: 'copy', workspace_id: 'ws' }],
      ['PATCH ', { no_sleep: true, egress: 'none', port: 9000 }],
    ])
  })

  it('forks once though the answer is lost', async () => {
    await using stub = await startStub((_request, response, number) => (number === 1 ? response.destroy() : sendJson(response, 202, { request_id: 'r' })))
    await new Mags({ apiUrl: stub.apiUrl, apiToken: 'secret' }).fork('web')
    const keys = stub.requests.map(({ headers }) => headers['idempotency-key'])
    expect(new Set(keys).size).toBe(1)
    expect(keys).toHaveLength(2)
  })
})
