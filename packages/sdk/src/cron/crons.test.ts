import { describe, expect, it } from 'vitest'
import { Mags } from '../mags.ts'
import { sendJson, startStub } from '../testing/start-stub.ts'

const pathAndBody = (requests: readonly { method: string; url: URL; body: string }[]) =>
  requests.map(({ method, url, body }) => [`${method} ${url.pathname.slice('/api/v1'.length)}${url.search}`, body === '' ? null : JSON.parse(body)])

describe('crons', () => {
  it('are asked for as the API has it', async () => {
    await using stub = await startStub((_request, response) => sendJson(response, 200, { cron_id: 'c', last_run: { request_id: 'r' }, runs: [] }))
    const mags = new Mags({ apiUrl: stub.apiUrl, apiToken: 'secret' })
    const cron = await mags.cronCreate({
      name: 'n',
      schedule: '@daily',
      script: 'x',
      timezone: 'Europe/Berlin',
      overlap: 'queue',
      workspaceId: 'w',
      environment: { aB: 'c' },
    })
    expect([cron.cronId, cron.lastRun?.requestId]).toEqual(['c', 'r'])
    await mags.cronList({ page: 2, pageSize: 5 })
    await mags.cronGet('n')
    await mags.cronUpdate('n', { enabled: false, timezone: null, memoryMb: 256 })
    await mags.cronRun('n/m')
    await mags.cronRuns('n', { pageSize: 1 })
    await mags.cronDelete('n')
    expect(pathAndBody(stub.requests)).toEqual([
      [
        'POST /mags-cron',
        { name: 'n', schedule: '@daily', script: 'x', timezone: 'Europe/Berlin', overlap: 'queue', workspace_id: 'w', environment: { aB: 'c' } },
      ],
      ['GET /mags-cron?page=2&page_size=5', null],
      ['GET /mags-cron/n', null],
      ['PATCH /mags-cron/n', { enabled: false, timezone: null, memory_mb: 256 }],
      ['POST /mags-cron/n%2Fm/run', null],
      ['GET /mags-cron/n/runs?page_size=1', null],
      ['DELETE /mags-cron/n', null],
    ])
    await expect(mags.cronGet('')).rejects.toThrow(TypeError)
  })

  it('are made and run once though the answer is lost', async () => {
    await using stub = await startStub((_request, response, number) => (number % 2 === 1 ? response.destroy() : sendJson(response, 200, {})))
    const mags = new Mags({ apiUrl: stub.apiUrl, apiToken: 'secret' })
    await mags.cronCreate({ name: 'n', schedule: '@daily', script: 'x' })
    await mags.cronRun('n')
    await mags.urlAliasCreate('blog', 'w')
    const keys = stub.requests.map(({ headers }) => headers['idempotency-key'])
    expect(keys).toHaveLength(6)
    expect(new Set(keys).size).toBe(3)
  })
})

describe('URL aliases', () => {
  it('are asked for as the API has it', async () => {
    await using stub = await startStub((_request, response) => sendJson(response, 200, { subdomain: 'blog', workspace_id: 'w', aliases: [] }))
    const mags = new Mags({ apiUrl: stub.apiUrl, apiToken: 'secret' })
    expect((await mags.urlAliasCreate('blog', 'w', { domain: 'blog.example.com' })).workspaceId).toBe('w')
    await mags.urlAliasCreate('shop', 'w')
    await mags.urlAliasList({ page: 2 })
    await mags.urlAliasDelete('blog')
    expect(pathAndBody(stub.requests)).toEqual([
      ['POST /mags-url-aliases', { subdomain: 'blog', workspace_id: 'w', domain: 'blog.example.com' }],
      ['POST /mags-url-aliases', { subdomain: 'shop', workspace_id: 'w' }],
      ['GET /mags-url-aliases?page=2', null],
      ['DELETE /mags-url-aliases/blog', null],
    ])
  })
})
