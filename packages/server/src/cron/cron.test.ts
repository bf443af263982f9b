import { describe, expect, it } from 'vitest'
import { databaseKinds, lacksDatabase, useTestDatabases } from '../../../../tests/kit/test-databases.ts'
import { CronClient, CronWorld } from '../testing/cron-world.ts'
import type { TestServer } from '../testing/test-server.ts'

const until = <T>(probe: () => T) => expect.poll(probe, { timeout: 10_000, interval: 5 })
const crons = (mags: TestServer) => new CronClient(mags)
const hourMs = 3_600_000

describe.each(databaseKinds)('cron on %s', (kind) => {
  describe.skipIf(lacksDatabase(kind))('server', () => {
    const newDatabase = useTestDatabases(kind)
    const newWorld = () => new CronWorld(newDatabase())

    it('is made, listed, changed and removed', async () => {
      await using world = newWorld()
      const mags = await world.start()
      const made = await crons(mags).add({ schedule: ' @daily ', timezone: 'Europe/Berlin', environment: { A: 'b' }, vcpus: 2, workspace_id: null })
      expect(made).toEqual({
        cron_id: expect.stringMatching(/^[0-9a-f-]{36}$/),
        name: 'job',
        schedule: '0 0 * * *',
        timezone: 'Europe/Berlin',
        script: 'echo hi',
        enabled: true,
        overlap: 'skip',
        environment: { A: 'b' },
        vcpus: 2,
        next_run_at: '2026-03-01T23:00:00.000Z',
        last_run: null,
        error: null,
        created_at: '2026-03-01T00:00:30.000Z',
        updated_at: '2026-03-01T00:00:30.000Z',
      })
      await crons(mags).add({ name: 'other' })
      expect((await mags.call('GET', '/mags-cron?page_size=1')).body).toMatchObject({ total: 2, page: 1, page_size: 1, crons: [{ name: 'other' }] })
      expect(await crons(mags).get(made.cron_id)).toEqual(made)
      expect(await mags.call('POST', '/mags-cron', { name: 'job', schedule: '@daily', script: 'x' })).toMatchObject({
        status: 409,
        body: { code: 'already_exists', error: 'name: there is a cron "job" already; choose another name, or change that one' },
      })
      expect(await mags.call('PATCH', '/mags-cron/other', { name: 'job' })).toMatchObject({ status: 409 })
      const changed = await mags.call('PATCH', '/mags-cron/job', { schedule: '0 1 * * *', timezone: null, vcpus: null, memory_mb: 256, name: 'renamed' })
      expect(changed).toMatchObject({
        status: 200,
        body: { name: 'renamed', schedule: '0 1 * * *', timezone: 'UTC', memory_mb: 256, next_run_at: '2026-03-01T01:00:00.000Z' },
      })
      expect(changed.body).not.toHaveProperty('vcpus')
      expect((await mags.call('PATCH', '/mags-cron/renamed', { enabled: false })).body).toMatchObject({ enabled: false, next_run_at: null })
      expect((await mags.call('PATCH', '/mags-cron/renamed', { enabled: true })).body).toMatchObject({ next_run_at: '2026-03-01T01:00:00.000Z' })
      expect(await mags.call('DELETE', '/mags-cron/renamed')).toMatchObject({ status: 200, body: { success: true } })
      for (const [method, path] of [
        ['GET', ''],
        ['DELETE', ''],
        ['PATCH', ''],
        ['POST', '/run'],
        ['GET', '/runs'],
      ] as const)
        expect(await mags.call(method, `/mags-cron/renamed${path}`, method === 'PATCH' ? {} : undefined)).toMatchObject({
          status: 404,
          body: { error: `no cron "renamed"; 'mags cron list' shows those there are` },
        })
    })

    it('refuses what could not run, naming the field', async () => {
      await using world = newWorld()
      const mags = await world.start()
      await crons(mags).add({ name: 'there' })
      const cases: [Record<string, unknown>, string][] = [
        [
          { schedule: '* * * * * *' },
          'schedule: must be five fields (minute, hour, day of month, month, day of week), and this has 6; seconds and years cannot be given',
        ],
        [{ schedule: '0 0 30 2 *' }, 'schedule: there is no such date'],
        [{ schedule: null }, 'schedule: is required'],
        [{ timezone: 'Europe/Nowhere' }, 'timezone: "Europe/Nowhere" does not exist; name one as the IANA does, such as Europe/Berlin or UTC'],
        [{ name: 'a/b' }, 'name: must be 1 to 63 of A-Z a-z 0-9 . _ -'],
        [{ script: '' }, 'script: must not be empty'],
        [{ overlap: 'kill' }, 'overlap: must be one of skip, queue, allow'],
        [{ enabled: 'yes' }, 'enabled: must be true or false'],
        [{ vcpus: 5 }, 'vcpus: at most 4 on this server'],
        [{ image: 'plan9' }, 'image: "plan9" is not an image of this server; it has debian-12, alpine'],
        [{ no_sleep: true }, 'no_sleep: needs persistent to be true'],
        [{ environment: { A: 1 } }, 'environment.A: must be a string'],
        [{ gpu: 1 }, 'unknown member "gpu"'],
        [{ next_run_at: '2026-01-01T00:00:00Z' }, 'unknown member "next_run_at"'],
      ]
      for (const [body, error] of cases) {
        if (body.schedule !== null)
          expect(await mags.call('POST', '/mags-cron', { name: 'n', schedule: '@daily', script: 'x', ...body }), error).toMatchObject({
            status: 400,
            body: { error },
          })
        expect(await mags.call('PATCH', '/mags-cron/there', body), error).toMatchObject({ status: 400, body: { error } })
      }
      const missing = { name: 'n', schedule: '@daily', script: 'x', file_ids: ['none'] }
      expect(await mags.call('POST', '/mags-cron', missing)).toMatchObject({
        status: 404,
        body: { error: expect.stringContaining('file_ids: no file "none"') },
      })
      expect((await mags.call('GET', '/mags-cron')).body).toMatchObject({ total: 1 })
    })

    it('runs at its times, each as a job of its own', async () => {
      await using world = newWorld()
      const mags = await world.start()
      await crons(mags).add({ script: 'env A', environment: { A: 'b' } })
      await crons(mags).look()
      expect(await crons(mags).runs()).toEqual([])
      world.now = Date.parse('2026-03-01T00:05:00.010Z')
      await crons(mags).look()
      await until(() => crons(mags).brief()).toEqual(['00:05 schedule completed'])
      const [first] = await crons(mags).runs()
      expect(first).toEqual({
        run_id: expect.any(String),
        scheduled_for: '2026-03-01T00:05:00.000Z',
        cause: 'schedule',
        status: 'completed',
        reason: null,
        request_id: expect.any(String),
        started_at: expect.stringMatching(/^2026-03-01T00:05/),
        completed_at: expect.any(String),
        exit_code: 0,
      })
      expect(await mags.status(first?.request_id ?? '')).toMatchObject({ name: `job-${Date.parse('2026-03-01T00:05:00Z') / 1000}`, status: 'completed' })
      expect((await mags.rows(first?.request_id ?? '')).logs).toMatchObject([{ message: 'b' }])
      await crons(mags).look()
      expect(await crons(mags).get()).toMatchObject({ next_run_at: '2026-03-01T00:10:00.000Z', last_run: first })
      expect((await mags.call('GET', '/mags-cron')).body).toMatchObject({ crons: [{ last_run: first }] })
      expect(await crons(mags).runs()).toHaveLength(1)
    })

    it('needs nobody to look when a time comes', async () => {
      await using world = newWorld()
      let began = performance.now()
      const mags = await world.start({ deps: { clock: () => Date.parse('2026-03-01T00:04:58Z') + Math.floor(performance.now() - began) } })
      began = performance.now()
      await crons(mags).add({ schedule: '5 0 * * *' })
      await until(() => crons(mags).brief()).toEqual([expect.stringMatching(/^00:05 \S+ completed$/)])
      expect((await crons(mags).get()).next_run_at).toBe('2026-03-02T00:05:00.000Z')
    })

    it('runs now when asked, also while disabled, and once for one Idempotency-Key', async () => {
      await using world = newWorld()
      const mags = await world.start()
      await crons(mags).add({ enabled: false, name: 'n'.repeat(63) })
      const first = await crons(mags).run('n'.repeat(63))
      expect(first).toMatchObject({ cause: 'manual', scheduled_for: '2026-03-01T00:00:30.000Z', request_id: expect.any(String) })
      expect((await mags.ended(first.request_id ?? '')).name).toBe(`${'n'.repeat(52)}-${Math.floor(world.now / 1000)}`)
      await crons(mags).run('n'.repeat(63))
      const answers = await Promise.all(
        Array.from({ length: 5 }, () => mags.call('POST', `/mags-cron/${'n'.repeat(63)}/run`, undefined, { 'idempotency-key': 'k' })),
      )
      expect(new Set(answers.map(({ status, body }) => `${status} ${body.run_id}`)).size).toBe(1)
      expect(await crons(mags).runs('n'.repeat(63))).toHaveLength(3)
      const cron = { name: 'keyed', schedule: '@daily', script: 'x' }
      const made = await Promise.all(Array.from({ length: 5 }, () => mags.call('POST', '/mags-cron', cron, { 'idempotency-key': 'c' })))
      expect(new Set(made.map(({ status, body }) => `${status} ${body.cron_id}`)).size).toBe(1)
    })

    it('skips a run while another is under way', async () => {
      await using world = newWorld()
      const mags = await world.start()
      await crons(mags).add({ script: 'wait' })
      const first = await crons(mags).run()
      expect(await crons(mags).run()).toMatchObject({
        status: 'skipped',
        request_id: null,
        reason: `the run of 2026-03-01T00:00:30.000Z (job ${first.request_id}) is not over`,
      })
      world.now += 5 * 60_000
      await crons(mags).look()
      await until(() => crons(mags).brief()).toEqual(['00:05 schedule skipped', '00:00 manual skipped', '00:00 manual running'])
      crons(mags).finish()
      await mags.ended(first.request_id ?? '')
      expect(await crons(mags).run()).toMatchObject({ reason: null, request_id: expect.any(String) })
      crons(mags).finish()
    })

    it('lets runs wait for each other, ten at most, or run side by side', async () => {
      await using world = newWorld()
      const mags = await world.start()
      await crons(mags).add({ script: 'wait', overlap: 'queue' })
      const first = await crons(mags).run()
      for (let index = 0; index < 10; index++)
        expect(await crons(mags).run()).toMatchObject({ status: 'waiting', reason: expect.stringContaining(String(first.request_id)) })
      expect(await crons(mags).run()).toMatchObject({ status: 'skipped', reason: '10 runs wait already' })
      const open = async () => (await crons(mags).runs()).filter(({ status }) => status === 'waiting' || status === 'running' || status === 'pending')
      for (let left = 10; left >= 0; left--) {
        await until(async () => (await crons(mags).runs()).filter(({ status }) => status === 'running')).toHaveLength(1)
        await until(() => mags.host.sandboxes.size).toBe(1)
        expect(await open()).toHaveLength(left + 1)
        crons(mags).finish()
        await until(open).toHaveLength(left)
      }
      expect((await crons(mags).runs()).filter(({ status }) => status === 'completed')).toHaveLength(11)
      await crons(mags).add({ name: 'side', script: 'wait', overlap: 'allow' })
      for (let index = 0; index < 12; index++) expect(await crons(mags).run('side')).toMatchObject({ request_id: expect.any(String) })
      await until(() => mags.host.sandboxes.size).toBe(12)
      crons(mags).finish()
    })

    it('drops what waits when it is disabled', async () => {
      await using world = newWorld()
      const mags = await world.start()
      await crons(mags).add({ script: 'wait', overlap: 'queue' })
      const first = await crons(mags).run()
      await crons(mags).run()
      await mags.call('PATCH', '/mags-cron/job', { enabled: false })
      expect((await crons(mags).runs())[0]).toMatchObject({ status: 'skipped', reason: 'the cron was disabled' })
      await until(() => mags.host.sandboxes.size).toBe(1)
      crons(mags).finish()
      expect(await mags.ended(first.request_id ?? '')).toMatchObject({ status: 'completed' })
    })

    it('says who has its workspace, or waits for that', async () => {
      await using world = newWorld()
      const mags = await world.start()
      const holder = await mags.submit({ script: 'wait', workspace_id: 'w' })
      await until(() => mags.host.sandboxes.size).toBe(1)
      await crons(mags).add({ name: 'failing', workspace_id: 'w' })
      await crons(mags).add({ name: 'waiting', workspace_id: 'w', overlap: 'queue', script: 'write /a 1' })
      const words = expect.stringContaining(`workspace 'w' is already in use by job ${holder} (status: `)
      expect(await crons(mags).run('failing')).toMatchObject({ status: 'failed', request_id: null, reason: words })
      expect(await crons(mags).run('waiting')).toMatchObject({ status: 'waiting', reason: words })
      crons(mags).finish()
      await until(async () => (await crons(mags).runs('waiting'))[0]).toMatchObject({ status: 'completed', exit_code: 0 })
      expect((await mags.call('GET', '/mags-jobs')).body).toMatchObject({ total: 2 })
    })

    it('tells why a run could not start', async () => {
      await using world = newWorld()
      const mags = await world.start()
      await crons(mags).add({ base_workspace_id: 'gone' })
      expect(await crons(mags).run()).toMatchObject({
        status: 'failed',
        reason: "base_workspace_id: no workspace 'gone'; 'mags workspace list' shows those there are",
      })
      const sql = await world.sql()
      await sql.updateTable('crons').set({ fields: '{"vcpus":"many"}' }).execute()
      expect(await crons(mags).run()).toMatchObject({ status: 'failed', reason: expect.stringContaining('vcpus: must be a whole number') })
    })

    it('keeps a run that finds no room, and starts it later', async () => {
      await using world = newWorld()
      const mags = await world.start({ deps: { limits: { maxPendingJobs: 1 } }, held: true })
      const blocker = await mags.submit({ script: 'wait' })
      await crons(mags).add()
      const waiting = await crons(mags).run()
      expect(waiting).toMatchObject({ status: 'starting', request_id: null })
      await mags.server.start()
      await until(() => mags.host.sandboxes.size).toBe(1)
      await crons(mags).look()
      await until(async () => (await crons(mags).runs())[0]).toMatchObject({ status: 'completed', run_id: waiting.run_id })
      crons(mags).finish()
      await mags.ended(blocker)
    })

    it('keeps the last hundred runs, and any that is not over', async () => {
      await using world = newWorld()
      const mags = await world.start()
      await crons(mags).add({ script: 'wait' })
      const first = await crons(mags).run()
      for (let index = 0; index < 105; index++) await crons(mags).run()
      const { body } = await mags.call('GET', '/mags-cron/job/runs?page=2&page_size=100')
      expect(body).toMatchObject({ total: 101, runs: [{ request_id: first.request_id }] })
      await until(() => mags.host.sandboxes.size).toBe(1)
      crons(mags).finish()
      await mags.ended(first.request_id ?? '')
      await crons(mags).run()
      expect((await mags.call('GET', '/mags-cron/job/runs')).body).toMatchObject({ total: 100 })
      await until(() => mags.host.sandboxes.size).toBe(1)
      crons(mags).finish()
    })

    it('belongs to its account', async () => {
      await using world = newWorld()
      const mags = await world.start()
      const { cron_id } = await crons(mags).add()
      const secret = await mags.server.tokens.create('other')
      const sql = await world.sql()
      await sql.updateTable('tokens').set({ account_id: 'someone' }).where('name', '=', 'other').execute()
      const theirs = { authorization: `Bearer ${secret}` }
      for (const id of ['job', cron_id]) {
        expect(await mags.call('GET', `/mags-cron/${id}`, undefined, theirs)).toMatchObject({ status: 404 })
        expect(await mags.call('PATCH', `/mags-cron/${id}`, { enabled: false }, theirs)).toMatchObject({ status: 404 })
        expect(await mags.call('DELETE', `/mags-cron/${id}`, undefined, theirs)).toMatchObject({ status: 404 })
        expect(await mags.call('POST', `/mags-cron/${id}/run`, undefined, theirs)).toMatchObject({ status: 404 })
        expect(await mags.call('GET', `/mags-cron/${id}/runs`, undefined, theirs)).toMatchObject({ status: 404 })
      }
      expect((await mags.call('GET', '/mags-cron', undefined, theirs)).body).toMatchObject({ total: 0 })
    })

    it('uses the files it names, however seldom it runs', async () => {
      await using world = newWorld()
      const mags = await world.start()
      const payload = '--b\r\ncontent-disposition: form-data; name="file"; filename="a"\r\n\r\nx\r\n--b--\r\n'
      const headers = { authorization: `Bearer ${mags.token}`, 'content-type': 'multipart/form-data; boundary=b' }
      const upload = async () =>
        JSON.parse((await mags.server.app.inject({ method: 'POST', url: '/api/v1/mags-files', headers, payload })).body).file_id as string
      const [kept, lost] = [await upload(), await upload()]
      await crons(mags).add({ schedule: '@yearly', file_ids: [kept] })
      await mags.server.close()
      world.now += 40 * 24 * hourMs
      const second = await world.start()
      await until(async () => (await second.call('GET', '/mags-files')).body.total).toBe(1)
      expect((await second.call('GET', `/mags-files/${kept}`)).status).toBe(200)
      expect((await second.call('GET', `/mags-files/${lost}`)).status).toBe(404)
    })
  })
})
