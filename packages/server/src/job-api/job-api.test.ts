import { hostname } from 'node:os'
import { describe, expect, it } from 'vitest'
import { databaseKinds, lacksDatabase, useTestDatabases } from '../../../../tests/kit/test-databases.ts'
import { openDatabase } from '../state/database.ts'
import { JobApiClient } from '../testing/job-api-client.ts'
import { startTestServer, type TestServerOptions } from '../testing/test-server.ts'

const until = <T>(probe: () => T) => expect.poll(probe, { timeout: 10_000, interval: 5 })
const time = expect.stringMatching(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/)
const uuid = expect.stringMatching(/^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/)

describe.each(databaseKinds)('the Jobs API on %s', (kind) => {
  describe.skipIf(lacksDatabase(kind))('server', () => {
    const newDatabase = useTestDatabases(kind)
    const start = async (options: TestServerOptions = {}) => {
      const mags = await startTestServer({ ...options, deps: { database: newDatabase(), appsUrl: 'http://apps.test:8080', ...options.deps } })
      return Object.assign(mags, { jobs: new JobApiClient(mags) })
    }

    it('makes a job and runs it, as documented', async () => {
      await using mags = await start()
      const answer = await mags.call('POST', '/jobs', { name: 'Hello, world', script: 'echo hello\nerr oh', type: 'inline', environment: { A: 'b' }, gpu: 1 })
      expect(answer).toEqual({
        status: 202,
        body: { request_id: uuid, status: 'accepted', message: 'Job submitted successfully', warnings: ['unknown member "gpu" was ignored'] },
        headers: expect.anything(),
      })
      const id = String(answer.body.request_id)
      expect(await mags.jobs.ended(id)).toEqual({
        request_id: id,
        job_id: id,
        name: 'Hello, world',
        status: 'completed',
        logs: ['hello', 'oh'],
        duration: expect.any(Number),
        script_duration_ms: expect.any(Number),
        exit_code: 0,
        created_at: time,
        started_at: time,
        completed_at: time,
        error_message: null,
        vm_info: { vm_id: expect.stringMatching(/^[0-9a-f]{12}$/), agent_id: hostname(), ip_address: '', ipv4_address: '', ipv6_address: '' },
        persist: false,
        ipv6_address: null,
        proxy_url: null,
        workspace_id: null,
        sleeping: false,
        image: 'debian-12',
        isolation: 'container',
        vcpus: 2,
        memory_mb: 512,
        warm: expect.toSatisfy((warm) => warm === null || warm === true),
        attempt: 1,
        max_retries: 0,
        retry_at: null,
        queue_duration_ms: expect.any(Number),
        acquire_duration_ms: expect.any(Number),
        attach_duration_ms: expect.any(Number),
        first_byte_duration_ms: expect.any(Number),
        start_duration_ms: expect.any(Number),
      })
      const run = {
        ...{ id, request_id: id, job_id: id, job_name: 'Hello, world', status: 'completed', exit_code: 0, error: null, agent_id: hostname() },
        ...{ created_at: time, started_at: time, completed_at: time, duration_ms: expect.any(Number), attempt: 1, max_retries: 0 },
      }
      const job = {
        ...{ id, name: 'Hello, world', description: null, script_type: 'inline', script: 'echo hello\nerr oh', vcpus: 2, memory_mb: 512 },
        ...{ environment: { A: 'b' }, stateful: false, workspace_id: null, workspace_size_gb: null, persist: false, ip_lease: false, proxy_port: 8080 },
        ...{ image: null, isolation: 'auto', timeout: 3600, max_retries: 0, retry_backoff_seconds: 5, priority: 0, egress: null },
        ...{ template_id: null, template_revision: null, created_at: time, updated_at: time, user_id: uuid, last_run: run },
      }
      expect((await mags.call('GET', `/jobs/${id}`)).body).toEqual(job)
      expect((await mags.call('GET', '/jobs')).body).toEqual({ jobs: [job], total: 1, page: 1, page_size: 20 })
      expect((await mags.call('GET', `/jobs/${id}/details`)).body).toEqual({
        ...job,
        runs: { total: 1, not_started: 0, in_progress: 0, completed: 1, failed: 0, cancelled: 0, error: 0 },
      })
      expect((await mags.call('GET', `/jobs/${id}/vm-info`)).body).toMatchObject({ agent_id: hostname(), ip_address: '' })
      expect((await mags.call('GET', `/jobs/${id}/logs`)).body).toMatchObject({
        logs: [
          { level: 'info', message: 'hello', source: 'stdout' },
          { level: 'error', message: 'oh', source: 'stderr' },
        ],
      })
      expect(mags.host.acquired).toMatchObject([{ vcpus: 2, memoryMb: 512, diskGb: 2, persistent: false }])
    })

    it('refuses what is missing with 400 and what is out of its range with 422, naming field and rule', async () => {
      await using mags = await start()
      const cases: [Record<string, unknown>, number, string][] = [
        [{ name: undefined }, 400, 'name: is required'],
        [{ script: undefined }, 400, 'script: is required'],
        [{ script: 7 }, 400, 'script: must be a string'],
        [{ vcpus: '2' }, 400, 'vcpus: must be a number'],
        [{ stateful: 'yes' }, 400, 'stateful: must be true or false'],
        [{ name: ' ' }, 422, 'name: must not be blank'],
        [{ name: 'a\nb' }, 422, 'name: must be one line without control characters'],
        [{ name: 'a\u202eb' }, 422, 'name: must be one line without control characters'],
        [{ script: ' \n' }, 422, 'script: must not be blank'],
        [{ script: 'x'.repeat(1024 * 1024 + 1) }, 413, 'script: at most 1 MiB'],
        [{ type: 'url' }, 422, 'type: must be one of inline'],
        [{ isolation: 'glass' }, 422, 'isolation: must be one of auto, vm, container'],
        [{ vcpus: 0 }, 422, 'vcpus: must be a whole number from 1 to 4 on this server'],
        [{ vcpus: 5 }, 422, 'vcpus: must be a whole number from 1 to 4 on this server'],
        [{ vcpus: 1.5 }, 422, 'vcpus: must be a whole number from 1 to 4 on this server'],
        [{ memory_mb: 64 }, 422, 'memory_mb: must be a whole number from 128 to 4,096 on this server'],
        [{ memory_mb: 8192 }, 422, 'memory_mb: must be a whole number from 128 to 4,096 on this server'],
        [{ stateful: true, workspace_size_gb: 21 }, 422, 'workspace_size_gb: must be a whole number from 1 to 20 on this server'],
        [{ proxy_port: 0 }, 422, 'proxy_port: must be a whole number from 1 to 65,535'],
        [{ proxy_port: 80.5 }, 422, 'proxy_port: must be a whole number from 1 to 65,535'],
        [{ timeout: 0 }, 422, 'timeout: must be a whole number from 1 to 2,592,000'],
        [{ max_retries: 11 }, 422, 'max_retries: must be a whole number from 0 to 10'],
        [{ retry_backoff_seconds: 3601 }, 422, 'retry_backoff_seconds: must be a whole number from 1 to 3,600'],
        [{ priority: 101 }, 422, 'priority: must be a whole number from -100 to 100'],
        [{ workspace_id: 'a/b' }, 422, 'workspace_id: must be 1 to 63 of A-Z a-z 0-9 . _ -'],
        [{ environment: { '1A': 'x' } }, 422, 'environment.1A: a name must be letters, digits and _ and not begin with a digit'],
        [{ egress: { deny: ['nope'] } }, 422, 'egress.deny.0: must be a whole domain such as example.org'],
        [{ workspace_id: 'w' }, 400, 'workspace_id: needs stateful to be true; a job that is not stateful keeps nothing'],
        [{ isolation: 'vm' }, 400, 'isolation: "vm" cannot be had on this server: no KVM'],
        [{ image: 'plan9' }, 400, 'image: "plan9" is not an image of this server; it has debian-12, alpine'],
        [{ ip_lease: true }, 400, 'ip_lease: this server has no addresses to lease; its operator sets MAGS_IP_PREFIXES to prefixes that are routed to it'],
      ]
      for (const [body, status, error] of cases) {
        const answer = await mags.call('POST', '/jobs', { name: 'job', script: 'echo', ...body })
        expect(answer, error).toMatchObject({ status, body: { error } })
        if (status === 422) expect(answer.body.code).toBe('out_of_range')
      }
      expect((await mags.call('GET', '/jobs')).body).toMatchObject({ total: 0 })
      const id = await mags.jobs.create()
      for (const [body, status, error] of cases)
        if (!Object.values(body).includes(undefined)) expect(await mags.call('PUT', `/jobs/${id}`, body), error).toMatchObject({ status, body: { error } })
      expect(await mags.call('GET', '/jobs?page_size=101')).toMatchObject({ status: 422 })
      expect(await mags.call('GET', '/jobs?page=0')).toMatchObject({ status: 422 })
      expect(await mags.call('GET', '/jobs?page=x')).toMatchObject({ status: 400 })
      expect(await mags.call('GET', '/jobs?sort=name')).toMatchObject({ status: 400, body: { error: 'unknown member "sort"' } })
      expect(await mags.call('POST', `/jobs/${id}/run`, { script: 'x' })).toMatchObject({ status: 400, body: { error: 'unknown member "script"' } })
      const json = { method: 'POST' as const, url: '/api/v1/jobs', headers: { authorization: `Bearer ${mags.token}`, 'content-type': 'application/json' } }
      expect((await mags.server.app.inject({ ...json, payload: '{"name": }' })).statusCode).toBe(400)
      expect((await mags.server.app.inject({ ...json, payload: '[]' })).json()).toMatchObject({ error: 'the body must be a JSON object', code: 'bad_request' })
    })

    it('takes two cores at most of a machine that has one', async () => {
      await using mags = await start({ capabilities: { maxVcpus: 1 } })
      const id = await mags.jobs.create()
      expect(await mags.jobs.get(id)).toMatchObject({ vcpus: 1 })
      expect(await mags.jobs.ended(id)).toMatchObject({ status: 'completed', vcpus: 1 })
    })

    it('has all members reach the run', async () => {
      await using mags = await start()
      const body = {
        ...{ description: 'd', vcpus: 3, memory_mb: 1024, environment: { A: 'a' }, image: 'alpine', isolation: 'container', timeout: 9, priority: -5 },
        ...{ max_retries: 2, retry_backoff_seconds: 7, egress: { allow: ['example.org'] }, proxy_port: 3000, persist: true },
      }
      const id = await mags.jobs.create({ script: 'env A', ...body })
      expect(await mags.jobs.get(id)).toMatchObject({ ...body, updated_at: time })
      await until(() => mags.jobs.status(id)).toMatchObject({ status: 'completed', logs: ['a'], persist: true, image: 'alpine', vcpus: 3, memory_mb: 1024 })
      expect(mags.host.acquired).toMatchObject([{ vcpus: 3, memoryMb: 1024, image: 'alpine', isolation: 'container', persistent: true }])
      const db = await openDatabase(mags.deps.database)
      const row = await db.selectFrom('jobs').selectAll().executeTakeFirstOrThrow()
      await db.destroy()
      expect(row).toMatchObject({
        kind: 'job',
        definition_id: id,
        port: 3000,
        timeout_seconds: 9,
        priority: -5,
        max_retries: 2,
        retry_backoff_seconds: 7,
        egress: '{"allow":["example.org"]}',
      })
      // It is not one of the Mags jobs, but reached by its request id.
      expect((await mags.call('GET', `/mags-jobs/${id}/status`)).body).toMatchObject({ request_id: id, status: 'running', persistent: true })
    })

    it('changes what is named, for later runs', async () => {
      await using mags = await start()
      const id = await mags.jobs.create({ script: 'env A', environment: { A: '1' }, timeout: 10, description: 'old' })
      await mags.jobs.ended(id)
      const changed = await mags.call('PUT', `/jobs/${id}`, { environment: { A: '2' }, timeout: null, description: null, colour: 'red' })
      expect(changed).toMatchObject({
        status: 200,
        body: {
          id,
          name: 'job',
          script: 'env A',
          environment: { A: '2' },
          timeout: 3600,
          description: null,
          warnings: ['unknown member "colour" was ignored'],
        },
      })
      expect((await mags.jobs.status(id)).logs).toEqual(['1'])
      const run = await mags.jobs.run(id)
      expect(await mags.jobs.ended(run.id)).toMatchObject({ logs: ['2'], job_id: id })
      // What GET gives can be sent back.
      const whole = await mags.jobs.get(id)
      const { warnings, ...same } = (await mags.call('PUT', `/jobs/${id}`, { ...whole, name: 'other' })).body
      expect(same).toEqual({ ...whole, name: 'other', updated_at: time })
      expect(warnings).toContain('unknown member "last_run" was ignored')
      expect(await mags.jobs.get('other')).toMatchObject({ id })
    })

    it('runs again with its environment overridden, and keeps its history', async () => {
      await using mags = await start()
      const id = await mags.jobs.create({ script: 'env A\nenv B', environment: { A: 'a', B: 'b' } })
      await mags.jobs.ended(id)
      const second = await mags.jobs.run(id, { environment: { B: 'c' } })
      expect(second).toMatchObject({ id: uuid, job_id: id, job_name: 'job', status: 'not_started', started_at: null, exit_code: null, agent_id: null })
      expect(await mags.jobs.ended(second.id)).toMatchObject({ logs: ['a', 'c'] })
      await mags.call('PUT', `/jobs/${id}`, { script: 'exit 2' })
      const third = await mags.jobs.run(second.id)
      await mags.jobs.ended(third.id)
      // The job means its newest run, a run means itself; what is done to a run's job can be done by the run.
      expect(await mags.jobs.status(id)).toMatchObject({ request_id: third.id, status: 'failed', exit_code: 2 })
      expect(await mags.jobs.status(second.id)).toMatchObject({ request_id: second.id, job_id: id, status: 'completed' })
      expect((await mags.jobs.runs(second.id)).map((run) => run.id)).toEqual([third.id, second.id, id])
      expect((await mags.call('GET', `/jobs/${id}/runs?page=2&page_size=2`)).body).toMatchObject({ runs: [{ id }], total: 3, page: 2, page_size: 2 })
      expect((await mags.call('GET', `/jobs/${second.id}/details`)).body).toMatchObject({
        id,
        last_run: { id: third.id },
        runs: { total: 3, completed: 2, failed: 1 },
      })
      expect((await mags.call('GET', '/jobs')).body).toMatchObject({ jobs: [{ id, last_run: { id: third.id } }], total: 1 })
      const much = Object.fromEntries(Array.from({ length: 999 }, (_, index) => [`V${index}`, '']))
      expect(await mags.call('POST', `/jobs/${id}/run`, { environment: much })).toMatchObject({
        status: 422,
        body: { error: 'environment: at most 1,000 entries' },
      })
    })

    it('deletes a job: cancels its runs, and nothing of it is found any more', async () => {
      await using mags = await start()
      const id = await mags.jobs.create({ script: 'wait' })
      const second = await mags.jobs.run(id)
      await until(() => mags.jobs.runs(id)).toMatchObject([{ status: 'in_progress' }, { status: 'in_progress' }])
      expect(await mags.call('DELETE', `/jobs/${second.id}`)).toMatchObject({ status: 200, body: { success: true } })
      for (const one of [id, second.id]) {
        expect((await mags.status(one)).status).toBe('stopped')
        for (const [method, path] of [
          ['GET', ''],
          ['PUT', ''],
          ['DELETE', ''],
          ['POST', '/run'],
          ['POST', '/cancel'],
          ['GET', '/details'],
          ['GET', '/runs'],
          ['GET', '/status'],
          ['GET', '/logs'],
          ['GET', '/vm-info'],
          ['POST', '/ssh'],
        ] as const) {
          const body = method === 'PUT' ? {} : path === '/ssh' ? { command: 'true' } : undefined
          expect(await mags.call(method, `/jobs/${one}${path}`, body), `${method} ${path}`).toMatchObject({
            status: 404,
            body: { code: 'not_found', error: `no job "${one}"; 'mags job list' shows those there are` },
          })
        }
      }
      expect((await mags.call('GET', '/jobs')).body).toMatchObject({ jobs: [], total: 0 })
    })

    it('gives the first answer also when it is full', async () => {
      await using mags = await start({ held: true, deps: { limits: { maxPendingJobs: 1 } } })
      const first = await mags.call('POST', '/jobs', { name: 'job', script: 'echo' }, { 'idempotency-key': 'k' })
      expect(first.status).toBe(202)
      expect(await mags.call('POST', '/jobs', { name: 'job', script: 'echo' })).toMatchObject({ status: 503, headers: { 'retry-after': '2' } })
      expect(await mags.call('POST', '/jobs', { name: 'job', script: 'echo' }, { 'idempotency-key': 'other' })).toMatchObject({ status: 503 })
      expect(await mags.call('POST', '/jobs', { name: 'job', script: 'echo' }, { 'idempotency-key': 'k' })).toMatchObject({ status: 202, body: first.body })
      expect((await mags.call('GET', '/jobs')).body).toMatchObject({ total: 1 })
    })

    it('answers once for one Idempotency-Key', async () => {
      await using mags = await start()
      const key = { 'idempotency-key': 'k' }
      const body = { name: 'job', script: 'echo' }
      const answers = await Promise.all([1, 2, 3].map(() => mags.call('POST', '/jobs', body, key)))
      expect(new Set(answers.map((answer) => answer.body.request_id)).size).toBe(1)
      const id = String(answers[0]?.body.request_id)
      expect(await mags.call('POST', '/jobs', { ...body, script: 'other' }, key)).toMatchObject({ status: 409, body: { code: 'idempotency_conflict' } })
      const again = await Promise.all([1, 2].map(() => mags.call('POST', `/jobs/${id}/run`, undefined, { 'idempotency-key': 'r' })))
      expect(again.map(({ status }) => status)).toEqual([202, 202])
      expect(new Set(again.map((answer) => answer.body.id)).size).toBe(1)
      await until(() => mags.jobs.runs(id)).toMatchObject([{ status: 'completed' }, { id, status: 'completed' }])
    })

    it('means by a name or a workspace what is not over, and of that the newest', async () => {
      await using mags = await start()
      const waits = await mags.jobs.create({ name: 'etl', script: 'wait', stateful: true, workspace_id: 'data' })
      const ended = await mags.jobs.create({ name: 'etl', script: 'echo' })
      await mags.jobs.ended(ended)
      for (const name of ['etl', 'data']) {
        expect(await mags.jobs.status(name)).toMatchObject({ request_id: waits, job_id: waits })
        expect(await mags.jobs.get(name)).toMatchObject({ id: waits })
      }
      const { id: queued } = await mags.jobs.run('etl')
      expect(await mags.jobs.status('data')).toMatchObject({ request_id: queued, job_id: waits, status: 'not_started' })
      expect(await mags.jobs.status(waits)).toMatchObject({ request_id: queued })
      for (const id of [queued, waits]) expect((await mags.call('POST', `/jobs/${id}/cancel`)).body).toMatchObject({ message: 'Job cancelled' })
      expect(await mags.jobs.runs(waits)).toMatchObject([{ status: 'cancelled' }, { status: 'cancelled' }])
      expect(await mags.jobs.get('etl')).toMatchObject({ id: ended })
      expect(await mags.jobs.get('data')).toMatchObject({ id: waits })
      // Whoever repeats a delete means nobody else.
      const heir = await mags.jobs.create({ name: 'heir', stateful: true, workspace_id: ended })
      await mags.jobs.ended(heir)
      for (const status of [200, 404]) expect(await mags.call('DELETE', `/jobs/${ended}`)).toMatchObject({ status })
      expect(await mags.jobs.get(heir)).toMatchObject({ id: heir })
    })

    it('says how long each step took', async () => {
      await using mags = await start()
      const made = await mags.call('POST', '/jobs', { name: 'job', script: 'echo' })
      const id = String(made.body.request_id)
      await mags.jobs.ended(id)
      const again = await mags.call('POST', `/jobs/${id}/run`)
      for (const { headers } of [made, again]) expect(headers['server-timing']).toMatch(/^store;dur=[\d.]+$/)
      await mags.jobs.ended(String(again.body.id))
      const { headers } = await mags.call('GET', `/jobs/${id}/status`)
      expect(headers['server-timing']).toMatch(/^queue;dur=[\d.]+, acquire(;desc="no warm sandbox")?;dur=[\d.]+, attach;dur=[\d.]+, first-byte;dur=[\d.]+$/)
    })

    it('has nothing of another account', async () => {
      await using mags = await start()
      const id = await mags.jobs.create({ script: 'echo' })
      await mags.jobs.ended(id)
      const template = await mags.call('POST', '/job-templates', { name: 't', script: 'echo' })
      const other = await mags.server.tokens.create('other')
      const db = await openDatabase(mags.deps.database)
      await db.updateTable('tokens').set({ account_id: 'someone' }).where('name', '=', 'other').execute()
      await db.destroy()
      const authorization = { authorization: `Bearer ${other}` }
      for (const path of [`/jobs/${id}`, `/jobs/${id}/status`, `/jobs/${id}/logs`, '/jobs/job', `/job-templates/${template.body.id}`])
        expect(await mags.call('GET', path, undefined, authorization), path).toMatchObject({ status: 404, body: { code: 'not_found' } })
      expect(await mags.call('DELETE', `/jobs/${id}`, undefined, authorization)).toMatchObject({ status: 404 })
      for (const path of ['/jobs', '/job-templates']) expect((await mags.call('GET', path, undefined, authorization)).body).toMatchObject({ total: 0 })
      expect(await mags.jobs.get(id)).toMatchObject({ id })
    })
  })
})

describe('the OpenAPI document', () => {
  it('has the Jobs API and templates', async () => {
    await using mags = await startTestServer()
    const { paths } = (await mags.server.app.inject('/openapi.json')).json<{ paths: Record<string, Record<string, object>> }>()
    const methods = Object.fromEntries(
      Object.entries(paths)
        .filter(([path]) => path.startsWith('/api/v1/job'))
        .map(([path, routes]) => [path.slice('/api/v1'.length), Object.keys(routes).sort()]),
    )
    expect(methods).toEqual({
      '/jobs': ['get', 'post'],
      '/jobs/{id}': ['delete', 'get', 'put'],
      '/jobs/{id}/cancel': ['post'],
      '/jobs/{id}/details': ['get'],
      '/jobs/{id}/logs': ['get'],
      '/jobs/{id}/run': ['post'],
      '/jobs/{id}/runs': ['get'],
      '/jobs/{id}/ssh': ['post'],
      '/jobs/{id}/status': ['get'],
      '/jobs/{id}/vm-info': ['get'],
      '/job-templates': ['get', 'post'],
      '/job-templates/{id}': ['delete', 'get', 'put'],
      '/job-templates/{id}/revisions': ['get'],
      '/job-templates/{id}/run': ['post'],
    })
    expect(paths['/api/v1/jobs']?.post).toMatchObject({
      requestBody: {
        content: {
          'application/json': {
            schema: { required: ['name', 'script'], properties: { vcpus: { anyOf: [{ type: 'integer', minimum: 1 }, { type: 'null' }] } } },
          },
        },
      },
    })
  })
})
