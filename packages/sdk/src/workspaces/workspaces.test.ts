import { describe, expect, it } from 'vitest'
import { Mags } from '../mags.ts'
import { sendJson, startStub } from '../testing/start-stub.ts'

describe('workspaces', () => {
  it('are asked for as the API has it', async () => {
    await using stub = await startStub((_request, response) => sendJson(response, 200, { workspace_id: 'p', version: 4, size_bytes: 1, workspaces: [] }))
    const mags = new Mags({ apiUrl: stub.apiUrl, apiToken: 'secret' })
    await mags.listWorkspaces({ page: 2, pageSize: 5 })
    expect((await mags.getWorkspace('p')).workspaceId).toBe('p')
    await mags.workspaceVersions('p')
    await mags.diffWorkspace('p', { from: 3, to: 5, content: true })
    await mags.diffWorkspace('p')
    await mags.forkWorkspace('p', 'exp', { version: 3 })
    await mags.restoreWorkspace('p', 3)
    await mags.resizeWorkspace('p', 10)
    await mags.deleteWorkspace('p')
    await mags.sync('job')
    await mags.new('p', { baseWorkspaceId: 'b', diskGb: 4 })
    expect(
      stub.requests.map(({ method, url, body }) => [`${method} ${url.pathname.slice('/api/v1'.length)}${url.search}`, body === '' ? null : JSON.parse(body)]),
    ).toEqual([
      ['GET /mags-workspaces?page=2&page_size=5', null],
      ['GET /mags-workspaces/p', null],
      ['GET /mags-workspaces/p/versions', null],
      ['GET /mags-workspaces/p/diff?from=3&to=5&content=true', null],
      ['GET /mags-workspaces/p/diff', null],
      ['POST /mags-workspaces/p/fork', { workspace_id: 'exp', version: 3 }],
      ['POST /mags-workspaces/p/restore', { version: 3 }],
      ['PATCH /mags-workspaces/p', { disk_gb: 10 }],
      ['DELETE /mags-workspaces/p', null],
      ['POST /mags-jobs/job/sync', null],
      ['POST /mags-jobs', { script: 'true', name: 'p', workspace_id: 'p', base_workspace_id: 'b', disk_gb: 4, persistent: true }],
    ])
  })

  it('fork once though the answer is lost', async () => {
    await using stub = await startStub((_request, response, number) => (number === 1 ? response.destroy() : sendJson(response, 201, { workspace_id: 'exp' })))
    await new Mags({ apiUrl: stub.apiUrl, apiToken: 'secret' }).forkWorkspace('p', 'exp')
    const keys = stub.requests.map(({ headers }) => headers['idempotency-key'])
    expect(keys).toHaveLength(2)
    expect(keys[0]).toBe(keys[1])
  })

  it('need a name', async () => {
    await expect(new Mags({ apiUrl: 'http://127.0.0.1:1', apiToken: 't' }).deleteWorkspace('')).rejects.toThrow(/must not be empty/)
  })
})
