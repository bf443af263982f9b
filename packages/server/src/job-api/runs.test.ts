import { hostname } from 'node:os'
import { describe, expect, it } from 'vitest'
import { databaseKinds, lacksDatabase, useTestDatabases } from '../../../../tests/kit/test-databases.ts'
import { JobApiClient } from '../testing/job-api-client.ts'
import { startTestServer, type TestServerOptions } from '../testing/test-server.ts'

const until = <T>(probe: () => T) => expect.poll(probe, { timeout: 10_000, interval: 5 })
const time = expect.stringMatching(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/)

describe.each(databaseKinds)('runs of the Jobs API on %s', (kind) => {
  describe.skipIf(lacksDatabase(kind))('server', () => {
    const newDatabase = useTestDatabases(kind)
    const start = async (options: TestServerOptions = {}) => {
      const mags = await startTestServer({ ...options, deps: { database: newDatabase(), appsUrl: 'http://apps.test:8080', ...options.deps } })
      return Object.assign(mags, { jobs: new JobApiClient(mags) })
    }

    it('says how a persistent job is reached, from its start to its end', async () => {
      await using mags = await start()
      const id = await mags.jobs.create({ persist: true, script: 'exit 3' })
      const running = {
        status: 'failed',
        exit_code: 3,
        persist: true,
        // Its sandbox lives on, and its time stands still.
        completed_at: time,
        proxy_url: expect.stringMatching(/^http:\/\/[0-9a-f]{12}\.apps\.test:8080$/),
      }
      await until(() => mags.jobs.status(id)).toMatchObject(running)
      const { started_at, completed_at, duration } = await mags.jobs.status(id)
      expect(duration).toBe(Date.parse(completed_at ?? '') - Date.parse(started_at ?? ''))
      expect(await mags.jobs.runs(id)).toMatchObject([{ status: 'failed', completed_at, duration_ms: duration }])
      expect((await mags.call('POST', `/jobs/${id}/ssh`, { command: 'echo in' })).body).toEqual({
        ...{ exit_code: 0, stdout: 'in\n', stderr: '', truncated: false },
        duration_ms: expect.any(Number),
      })
      expect(await mags.call('POST', `/jobs/${id}/cancel`)).toMatchObject({
        status: 200,
        body: { success: true, status: 'cancelled', message: 'Job cancelled' },
      })
      expect(await mags.jobs.status(id)).toMatchObject({ status: 'cancelled', completed_at: time })
    })

    it('cancels once, and leaves alone what is over', async () => {
      await using mags = await start()
      const id = await mags.jobs.create({ script: 'wait' })
      await until(() => mags.jobs.status(id)).toMatchObject({ status: 'in_progress', vm_info: { agent_id: hostname() } })
      const cancel = () => mags.call('POST', `/jobs/${id}/cancel`)
      expect(await cancel()).toMatchObject({ status: 200, body: { success: true, status: 'cancelled', message: 'Job cancelled' } })
      expect(await cancel()).toMatchObject({ status: 200, body: { success: true, status: 'cancelled', message: 'Job is over already (cancelled)' } })
      const failed = await mags.jobs.create({ script: 'exit 7' })
      expect(await mags.jobs.ended(failed)).toMatchObject({ status: 'failed', exit_code: 7, error_message: 'the script ended with exit code 7' })
      expect((await mags.call('POST', `/jobs/${failed}/cancel`)).body).toMatchObject({ success: true, status: 'failed' })
      expect(await mags.jobs.status(failed)).toMatchObject({ status: 'failed' })
    })

    it('cancels what waits', async () => {
      await using mags = await start({ held: true })
      const id = await mags.jobs.create()
      expect(await mags.jobs.status(id)).toMatchObject({ status: 'not_started', logs: [], duration: null, vm_info: null, started_at: null, proxy_url: null })
      expect((await mags.call('GET', `/jobs/${id}/vm-info`)).body).toEqual({ vm_id: null, agent_id: null, ip_address: '', ipv4_address: '', ipv6_address: '' })
      expect(await mags.call('POST', `/jobs/${id}/ssh`, { command: 'true' })).toMatchObject({ status: 400, body: { code: 'job_not_running' } })
      expect((await mags.call('POST', `/jobs/${id}/cancel`)).body).toMatchObject({ status: 'cancelled' })
    })

    it('runs commands only in a job that runs', async () => {
      await using mags = await start()
      const id = await mags.jobs.create({ script: 'wait' })
      await until(() => mags.jobs.status(id)).toMatchObject({ status: 'in_progress' })
      const ssh = (body: Record<string, unknown>) => mags.call('POST', `/jobs/${id}/ssh`, body)
      await until(() => ssh({ command: 'echo out\nerr oh\nexit 4' })).toMatchObject({
        status: 200,
        body: { exit_code: 4, stdout: 'out\n', stderr: 'oh\n', duration_ms: expect.any(Number) },
      })
      expect(await ssh({ command: ' ' })).toMatchObject({ status: 422, body: { error: 'command: must not be blank', code: 'out_of_range' } })
      expect(await ssh({})).toMatchObject({ status: 400, body: { error: 'command: is required' } })
      expect(await ssh({ command: 'x', timeout_seconds: 0 })).toMatchObject({ status: 422 })
      expect(await ssh({ command: 'x', shell: 'bash' })).toMatchObject({ status: 400, body: { error: 'unknown member "shell"' } })
      expect((await ssh({ command: 'stubborn', timeout_seconds: 1 })).body).toMatchObject({ exit_code: 124 })
      await mags.call('POST', `/jobs/${id}/cancel`)
      expect(await ssh({ command: 'echo' })).toMatchObject({
        status: 400,
        body: { code: 'job_not_running', error: 'job job is over (status: cancelled); one made with persist can be used after its script has ended' },
      })
    })

    it('follows a run, from any row, also one that ended long ago', async () => {
      await using mags = await start()
      const id = await mags.jobs.create({ script: 'echo one\necho two\nexit 3' })
      const events = await mags.jobs.follow(id)
      expect(events.map(({ event, data }) => [event, data.message ?? data])).toEqual([
        ['log', 'one'],
        ['log', 'two'],
        ['end', { status: 'failed', exit_code: 3 }],
      ])
      expect(await mags.jobs.follow(id)).toEqual(events)
      expect(await mags.jobs.follow(id, `&after=${events[0]?.id}`)).toEqual(events.slice(1))
      expect(await mags.jobs.follow(id, '', { 'last-event-id': String(events[1]?.id) })).toEqual(events.slice(2))
      expect(await mags.jobs.follow(id, '&source=stderr')).toEqual(events.slice(2))
      const cancelled = await mags.jobs.create({ script: 'wait' })
      const following = mags.jobs.follow(cancelled)
      await until(() => mags.jobs.status(cancelled)).toMatchObject({ status: 'in_progress' })
      await mags.call('POST', `/jobs/${cancelled}/cancel`)
      expect((await following).at(-1)).toMatchObject({ event: 'end', data: { status: 'cancelled' } })
    })

    it('keeps /workspace of a stateful job, whose runs wait for each other', async () => {
      await using mags = await start()
      const id = await mags.jobs.create({ stateful: true, script: 'read /workspace/x\nwrite /workspace/x one\nwait' })
      expect(await mags.jobs.get(id)).toMatchObject({ stateful: true, workspace_id: id, workspace_size_gb: 10 })
      await until(() => mags.jobs.status(id)).toMatchObject({ status: 'in_progress', workspace_id: id })
      await mags.call('PUT', `/jobs/${id}`, { script: 'read /workspace/x' })
      const second = await mags.jobs.run(id)
      const third = await mags.jobs.create({ stateful: true, workspace_id: id, script: 'read /workspace/x' })
      expect(await mags.jobs.status(second.id)).toMatchObject({ status: 'not_started' })
      expect(await mags.jobs.status(third)).toMatchObject({ status: 'not_started' })
      for (const sandbox of mags.host.sandboxes.values()) sandbox.end({ kind: 'exited', exitCode: 0 })
      expect(await mags.jobs.ended(second.id)).toMatchObject({ status: 'completed', logs: ['one'] })
      expect(await mags.jobs.ended(third)).toMatchObject({ status: 'completed', logs: ['one'], workspace_id: id })
      expect((await mags.jobs.status(id)).request_id).toBe(second.id)
      expect(mags.host.acquired).toMatchObject(Array.from({ length: 3 }, () => ({ diskGb: 10, workspace: { scope: '/workspace' } })))
      const changed = await mags.call('PUT', `/jobs/${id}`, { stateful: false })
      expect(changed.body).toMatchObject({ stateful: false, workspace_id: null, workspace_size_gb: null })
    })

    it('goes on with a workspace as that is, whatever its size and image have become', async () => {
      await using mags = await start({ capabilities: { maxDiskGb: 50 } })
      const id = await mags.jobs.create({ stateful: true, workspace_id: 'data', image: 'alpine', workspace_size_gb: 12 })
      await mags.jobs.ended(id)
      const second = await mags.jobs.create({ stateful: true, workspace_id: 'data' })
      expect(await mags.jobs.ended(second)).toMatchObject({ status: 'completed', image: 'alpine' })
      const smaller = { status: 422, body: { error: "workspace_size_gb: workspace 'data' has 12 GB, and a disk can only grow" } }
      expect(await mags.call('POST', '/jobs', { name: 'job', script: 'echo', stateful: true, workspace_id: 'data', workspace_size_gb: 11 })).toMatchObject(
        smaller,
      )
      expect(await mags.call('PUT', `/jobs/${second}`, { workspace_size_gb: 11 })).toMatchObject(smaller)
      expect(await mags.call('PATCH', '/mags-workspaces/data', { disk_gb: 20 })).toMatchObject({ status: 200 })
      const third = await mags.jobs.run(id)
      expect(await mags.jobs.ended(third.id)).toMatchObject({ status: 'completed' })
      expect(mags.host.acquired.map(({ diskGb, image }) => [diskGb, image])).toEqual([
        [12, 'alpine'],
        [12, 'alpine'],
        [20, 'alpine'],
      ])
    })

    it('refuses a workspace that is not one for it', async () => {
      await using mags = await start()
      await mags.ended(await mags.submit({ script: 'echo', workspace_id: 'whole' }))
      const job = { name: 'job', script: 'echo', stateful: true }
      const whole = {
        status: 400,
        body: { error: "workspace_id: workspace 'whole' keeps a whole file system, and a stateful job keeps /workspace only; use another one" },
      }
      const image = {
        status: 400,
        body: { error: "image: workspace 'data' was made on image debian-12; ask for that one, leave image out, or use another workspace" },
      }
      const id = await mags.jobs.create({ ...job, workspace_id: 'data' })
      await mags.jobs.ended(id)
      expect(await mags.call('POST', '/jobs', { ...job, workspace_id: 'whole' })).toMatchObject(whole)
      expect(await mags.call('POST', '/jobs', { ...job, workspace_id: 'data', image: 'alpine' })).toMatchObject(image)
      expect(await mags.call('PUT', `/jobs/${id}`, { workspace_id: 'whole' })).toMatchObject(whole)
      expect(await mags.call('PUT', `/jobs/${id}`, { image: 'alpine' })).toMatchObject(image)
      // One that was made meanwhile.
      await mags.call('PUT', `/jobs/${id}`, { workspace_id: 'later' })
      await mags.ended(await mags.submit({ script: 'echo', workspace_id: 'later' }))
      expect(await mags.call('POST', `/jobs/${id}/run`)).toMatchObject({
        status: 400,
        body: { error: expect.stringContaining("'later' keeps a whole file system") },
      })
      expect(await mags.call('PUT', `/jobs/${id}`, { description: 'waits for another workspace' })).toMatchObject({ status: 200 })
      expect((await mags.call('GET', '/jobs')).body).toMatchObject({ total: 1 })
    })

    it('leases addresses from the submit to the end', async () => {
      await using mags = await start({ capabilities: { addressPrefixes: ['203.0.113.8/29', '2001:db8:1::/64'] } })
      const id = await mags.jobs.create({ ip_lease: true, script: 'wait' })
      await until(() => mags.jobs.status(id)).toMatchObject({ status: 'in_progress', vm_info: { ip_address: '203.0.113.9' } })
      const info = (await mags.call('GET', `/jobs/${id}/vm-info`)).body
      expect(info).toEqual({
        vm_id: expect.stringMatching(/^[0-9a-f]{12}$/),
        agent_id: hostname(),
        ip_address: '203.0.113.9',
        ipv4_address: '203.0.113.9',
        ipv6_address: expect.stringMatching(/^2001:db8:1:/),
      })
      expect(await mags.jobs.status(id)).toMatchObject({ ipv6_address: info.ipv6_address, vm_info: info })
      expect(mags.host.acquired).toMatchObject([{ addresses: { ipv4: '203.0.113.9', ipv6: info.ipv6_address } }])
      await mags.call('POST', `/jobs/${id}/cancel`)
      expect(await mags.jobs.status(id)).toMatchObject({ ipv6_address: null, vm_info: { ip_address: '', ipv4_address: '', ipv6_address: '' } })
    })

    it('is followed over its tries', async () => {
      let tries = 0
      await using mags = await start({
        behaviour: async (script) => {
          await script.stdout(`try ${++tries}\n`)
          return { kind: 'exited', exitCode: tries < 2 ? 5 : 0 }
        },
      })
      const id = await mags.jobs.create({ max_retries: 3, retry_backoff_seconds: 1 })
      const following = mags.jobs.follow(id)
      await until(() => mags.jobs.status(id)).toMatchObject({ status: 'not_started', attempt: 2, max_retries: 3, retry_at: time })
      const events = await following
      expect(events.flatMap(({ data }) => (data.source === 'stdout' ? [data.message] : []))).toEqual(['try 1', 'try 2'])
      expect(events.at(-1)).toEqual({ event: 'end', data: { status: 'completed', exit_code: 0 } })
      expect(await mags.jobs.status(id)).toMatchObject({ status: 'completed', attempt: 2, logs: ['try 1', 'try 2'], retry_at: null })
      expect(await mags.jobs.follow(id)).toEqual(events)
    })

    it('can be cancelled between two tries', async () => {
      await using mags = await start()
      const id = await mags.jobs.create({ script: 'exit 1', max_retries: 1, retry_backoff_seconds: 3600 })
      await until(() => mags.jobs.status(id)).toMatchObject({ status: 'not_started', attempt: 2 })
      expect((await mags.call('POST', `/jobs/${id}/cancel`)).body).toMatchObject({ status: 'cancelled' })
      expect((await mags.jobs.follow(id)).at(-1)).toEqual({ event: 'end', data: { status: 'cancelled', exit_code: null } })
    })

    it('goes on after a restart of the server', async () => {
      await using mags = await start({ held: true })
      const id = await mags.jobs.create({ script: 'echo one' })
      await mags.server.close()
      await using again = await startTestServer({ host: mags.host, deps: { database: mags.deps.database, logsDir: mags.deps.logsDir } })
      const jobs = new JobApiClient(again)
      expect(await jobs.ended(id)).toMatchObject({ status: 'completed', logs: ['one'] })
      expect((await jobs.run(id)).job_id).toBe(id)
    })
  })
})
