import { expect, it } from 'vitest'
import { openDatabase } from '../state/database.ts'
import { startTestServer } from '../testing/test-server.ts'

/** What each route that needs a body takes; the others get none. */
const bodies: Readonly<Record<string, object>> = {
  'POST /jobs/{id}/ssh': { command: 'id' },
  'PUT /jobs/{id}': { script: 'stolen' },
  'PUT /job-templates/{id}': { script: 'stolen' },
  'POST /mags-jobs/{id}/exec': { command: 'id' },
  'POST /mags-jobs/{id}/fork': { name: 'stolen' },
  'PATCH /mags-jobs/{id}': { startup_command: 'stolen' },
  'POST /mags-jobs/{id}/access': { port: 22 },
  'PUT /mags-jobs/{id}/egress': { egress: 'none' },
  'PATCH /mags-cron/{id}': { script: 'stolen' },
  'POST /mags-workspaces/{id}/fork': { workspace_id: 'stolen' },
  'POST /mags-workspaces/{id}/restore': { version: 1 },
  'PATCH /mags-url-aliases/{subdomain}': { workspace_id: 'none' },
  'PATCH /mags-workspaces/{id}': { disk_gb: 50 },
}
/** Of the server, for all accounts. */
const shared = ['/images/{name}']

it('no route takes anything of another account, by id or name', async () => {
  await using mags = await startTestServer({ capabilities: { vm: { available: true, detail: 'fake' } } })
  const idOf = async (path: string, body: object, member: string) => {
    const answer = await mags.call('POST', path, body)
    expect(answer.status, `${path} ${JSON.stringify(answer.body)}`).toBeLessThan(300)
    return String(answer.body[member])
  }
  const template = await idOf('/job-templates', { name: 'their-template', script: 'echo' }, 'id')
  const run = await mags.call('POST', `/job-templates/${template}/run`)
  const ids = [
    await idOf('/jobs', { name: 'their-job', script: 'wait', stateful: true, workspace_id: 'their-workspace' }, 'request_id'),
    String(run.body.id),
    template,
    await idOf('/mags-jobs', { name: 'their-mags-job', script: 'wait', persistent: true }, 'request_id'),
    await idOf('/microvms', { name: 'their-vm', image: 'debian-12' }, 'id'),
    await idOf('/images', { name: 'their-image', recipe: 'alpine' }, 'task_id'),
    await idOf('/mags-cron', { name: 'their-cron', schedule: '@daily', script: 'echo' }, 'id'),
    ...['their-job', 'their-template', 'their-vm', 'their-mags-job', 'their-workspace', 'their-cron'],
  ]
  const other = await mags.server.tokens.create('other')
  const db = await openDatabase(mags.deps.database)
  await db.updateTable('tokens').set({ account_id: 'someone' }).where('name', '=', 'other').execute()
  await db.destroy()
  const { paths } = (await mags.server.app.inject('/openapi.json')).json<{ paths: Record<string, Record<string, object>> }>()
  let tried = 0
  for (const [full, methods] of Object.entries(paths)) {
    const path = full.replace('/api/v1', '')
    if (!full.startsWith('/api/v1') || !/\{\w+\}/.test(path) || shared.includes(path)) continue
    for (const method of Object.keys(methods).map((name) => name.toUpperCase())) {
      for (const id of ids) {
        const body = bodies[`${method} ${path}`]
        const answer = await mags.call(method as 'GET', `${path.replace(/\{\w+\}/g, id)}${path.includes('/files') ? '?path=/x' : ''}`, body, {
          authorization: `Bearer ${other}`,
        })
        const what = `${method} ${path} with ${id}: ${JSON.stringify(answer.body)}`
        expect(answer.status, what).toBe(404)
        expect(JSON.stringify(answer.body).replaceAll(id, ''), what).not.toMatch(/their-|stolen|PRIVATE/)
        tried++
      }
    }
  }
  expect(tried).toBeGreaterThan(300)
  for (const path of ['/jobs', '/job-templates', '/microvms', '/mags-jobs', '/mags-workspaces', '/mags-cron', `/jobs?template_id=${template}`])
    expect((await mags.call('GET', path, undefined, { authorization: `Bearer ${other}` })).body, path).toMatchObject({ total: 0 })
  // A workspace of the same name is another one.
  const own = await mags.call(
    'POST',
    '/jobs',
    { name: 'x', script: 'echo', stateful: true, workspace_id: 'their-workspace' },
    { authorization: `Bearer ${other}` },
  )
  expect(own.status).toBe(202)
  const started = await mags.call('POST', '/jobs', { name: 'y', script: 'echo' }, { authorization: `Bearer ${other}`, 'idempotency-key': 'k' })
  const again = await mags.call('POST', '/jobs', { name: 'y', script: 'echo' }, { 'idempotency-key': 'k' })
  expect(again.body.request_id).not.toBe(started.body.request_id)
  // One key is for one request, whatever the route.
  for (const [path, body] of [
    ['/mags-jobs', { name: 'y', script: 'echo' }],
    ['/job-templates', { name: 'y', script: 'echo' }],
    ['/microvms', { name: 'y', image: 'debian-12' }],
    [`/job-templates/${template}/run`, {}],
  ] as const)
    expect(await mags.call('POST', path, body, { 'idempotency-key': 'k' }), path).toMatchObject({ body: { code: 'idempotency_conflict' } })
})
