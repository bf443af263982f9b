import { randomBytes } from 'node:crypto'
import { mkdtemp, rm } from 'node:fs/promises'
import { join } from 'node:path'
import type { HostApi, JobStatusAnswer } from '@mags/protocol'
import { createServer, type MagsServer } from '@mags/server'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { canMakeSandboxes, openRealHost, runDirOf, testLogger } from '../kit/real-host.ts'

/** Jobs that sleep and wake, by the server over real sandboxes of both kinds. */
describe.skipIf(!canMakeSandboxes())('jobs that sleep', { timeout: 120_000 }, () => {
  const held = new AsyncDisposableStack()
  const instance = randomBytes(3).toString('hex')
  let dataDir: string
  let host: HostApi
  let server: MagsServer
  let token: string

  const open = async () => {
    host = await openRealHost({ instance, dataDir })
    server = await createServer({
      database: { kind: 'sqlite', path: join(dataDir, 'mags.db') },
      host,
      logsDir: join(dataDir, 'logs'),
      filesDir: join(dataDir, 'files'),
      logger: testLogger(),
      version: '0',
      publicUrl: 'http://127.0.0.1:1',
      appsUrl: 'http://apps.localhost:4780',
      ssh: { host: '127.0.0.1' },
    })
    token = await server.tokens.create('test')
    await server.start()
  }
  const close = async () => {
    await server.close()
    await host.close({ keepPersistent: true })
  }
  beforeAll(async () => {
    dataDir = await mkdtemp('/var/tmp/mags-server-sleep-')
    held.defer(() => rm(dataDir, { recursive: true, force: true }))
    held.defer(() => rm(runDirOf(instance), { recursive: true, force: true }))
    await open()
    held.defer(() => host.close({ keepPersistent: false }))
    held.defer(() => server.close())
  }, 120_000)
  afterAll(() => held.disposeAsync(), 60_000)

  const call = async (method: 'GET' | 'POST', path: string, body?: object): Promise<Record<string, unknown>> => {
    const answer = await server.app.inject({
      method,
      url: `/api/v1/mags-jobs${path}`,
      headers: { authorization: `Bearer ${token}`, 'content-type': 'application/json' },
      ...(body === undefined ? {} : { payload: JSON.stringify(body) }),
    })
    return JSON.parse(answer.body) as Record<string, unknown>
  }
  const status = async (id: string) => (await call('GET', `/${id}/status`)) as unknown as JobStatusAnswer
  const exec = async (id: string, command: string) => (await call('POST', `/${id}/exec`, { command })).stdout
  const systemRows = async (id: string) => ((await call('GET', `/${id}/logs?source=system`)).logs as { message: string }[]).map(({ message }) => message)
  const start = async (body: object) => {
    const id = String((await call('POST', '', { persistent: true, memory_mb: 256, ...body })).request_id)
    await expect.poll(async () => (await status(id)).attach_duration_ms, { timeout: 60_000 }).not.toBe(null)
    return id
  }

  for (const isolation of ['container', 'vm'] as const) {
    it(`${isolation}: wake where they were, also after a restart of the server`, async () => {
      const id = await start({ isolation, script: 'while :; do echo >> /root/count; sleep 0.05; done' })
      expect(await call('POST', `/${id}/sleep`, {})).toMatchObject({ status: 'sleeping', sleep_stage: 'frozen' })
      await close()
      await open()
      expect(await status(id)).toMatchObject({ status: 'sleeping', sleep_stage: 'frozen' })
      const [first, second] = [Number(await exec(id, 'wc -l < /root/count')), Number(await exec(id, 'sleep 0.5; wc -l < /root/count'))]
      expect(second).toBeGreaterThan(first)
      expect(await status(id)).toMatchObject({ status: 'running', wake_reason: 'exec' })
      expect(await call('POST', `/${id}/sleep`, { release: true })).toMatchObject({ sleep_stage: isolation === 'vm' ? 'hibernated' : 'frozen' })
      expect(await call('POST', `/${id}/wake`)).toMatchObject({ status: 'running', wake_duration_ms: expect.any(Number) })
      expect(Number(await exec(id, 'sleep 0.5; wc -l < /root/count'))).toBeGreaterThan(second)
      await call('POST', `/${id}/sleep`)
      expect(await call('POST', `/${id}/stop`)).toMatchObject({ success: true })
      expect(await status(id)).toMatchObject({ status: 'stopped' })
    })
  }

  it('container: wake from their workspace, with the startup command', async () => {
    const body = { isolation: 'container', workspace_id: 'w', environment: { GREETING: 'hi' }, startup_command: 'echo "$GREETING again"; sleep 1000' }
    const id = await start({ ...body, script: 'echo kept > /root/file; sleep 1000' })
    const before = (await status(id)).vm_id
    await expect.poll(() => exec(id, 'cat /root/file'), { timeout: 20_000 }).toBe('kept\n')
    expect(await call('POST', `/${id}/sleep`, { release: true })).toMatchObject({ sleep_stage: 'released' })
    expect(await status(id)).toMatchObject({ status: 'sleeping', vm_id: null, exit_code: null })
    expect(host.poolStatus()).toMatchObject({ busy: 0, sleeping: 0 })
    await close()
    await open()
    expect(await exec(id, 'cat /root/file; echo more > /root/file')).toBe('kept\n')
    await expect.poll(() => systemRows(id), { timeout: 20_000 }).toContain('hi again')
    expect((await status(id)).vm_id).not.toBe(before)
    await close()
    await open()
    expect(await exec(id, 'cat /root/file')).toBe('more\n')
    await call('POST', `/${id}/sleep`, { release: true })
    expect(await exec(id, 'cat /root/file')).toBe('more\n')
    await call('POST', `/${id}/sleep`)
    expect(await call('POST', `/${id}/stop`)).toMatchObject({ success: true })
    expect(await status(id)).toMatchObject({ status: 'stopped', error: null })
  })
})
