import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { createInterface } from 'node:readline'
import { setTimeout as delay } from 'node:timers/promises'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { curl } from '../kit/curl.ts'
import { type DaemonPlace, makePlace, startDaemon, type TestDaemon } from '../kit/daemon.ts'
import { leftOf } from '../kit/leaks.ts'
import { canTest, notRoot } from '../kit/require.ts'

type Json = Record<string, unknown>

const settings = { MAGS_ISOLATION: 'container', MAGS_POOL_MIN: '1', MAGS_GATEWAY_PORT: '0' }
const uuid = /^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/
const time = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/
const finished = ['completed', 'failed', 'cancelled', 'error']

/** The Jobs API as its users write it: one curl for each request of the documentation. */
describe.runIf(canTest('MAGS_REQUIRE_CONTAINER', notRoot))('the Jobs API over curl', () => {
  let place: DaemonPlace & AsyncDisposable
  let daemon: TestDaemon

  beforeAll(async () => {
    place = await makePlace()
    daemon = await startDaemon(settings, place)
  }, 240_000)

  afterAll(async () => {
    await daemon[Symbol.asyncDispose]()
    const left = leftOf(daemon)
    await place[Symbol.asyncDispose]()
    expect(left).toEqual([])
  }, 120_000)

  const token = () => ['-H', `Authorization: Bearer ${daemon.token}`]
  const send = async (method: string, path: string, body?: unknown) => {
    const data = body === undefined ? [] : ['-H', 'Content-Type: application/json', '-d', JSON.stringify(body)]
    const { status, body: text } = await curl('-X', method, `${daemon.url}/api/v1${path}`, ...token(), ...data)
    return { status, body: JSON.parse(text) as Json }
  }
  const get = async (path: string) => (await send('GET', path)).body
  const until = async (id: string, wanted: (status: Json) => boolean): Promise<Json> => {
    for (;;) {
      const status = await get(`/jobs/${id}/status`)
      if (wanted(status)) return status
      await delay(50)
    }
  }
  const ended = (id: string) => until(id, (status) => finished.includes(String(status.status)))
  const create = async (job: Json): Promise<string> => {
    const { status, body } = await send('POST', '/jobs', { type: 'inline', ...job })
    expect({ status, body }).toMatchObject({
      status: expect.toSatisfy((code: number) => code >= 200 && code < 300),
      body: { request_id: expect.stringMatching(uuid) },
    })
    return String(body.request_id)
  }

  it('makes a job, shows it, runs it again, changes and deletes it', async () => {
    const script = 'echo "Hello $NAME from $(nproc) CPUs"; echo oops >&2'
    const first = await send('POST', '/jobs', {
      name: 'hello',
      description: 'says hello',
      type: 'inline',
      script,
      vcpus: 1,
      memory_mb: 256,
      environment: { NAME: 'World' },
    })
    expect(first.body).toMatchObject({ request_id: expect.stringMatching(uuid), status: expect.any(String), message: expect.any(String) })
    const id = String(first.body.request_id)

    const status = await ended(id)
    const members =
      'request_id status name logs duration script_duration_ms exit_code started_at completed_at error_message vm_info persist ipv6_address proxy_url'
    expect(Object.keys(status)).toEqual(expect.arrayContaining(members.split(' ')))
    expect(status).toMatchObject({ request_id: id, name: 'hello', status: 'completed', exit_code: 0, persist: false, proxy_url: null, error_message: null })
    expect(status.logs).toEqual(expect.arrayContaining([expect.stringMatching(/^Hello World from \d+ CPUs$/)]))
    expect(status).toMatchObject({ started_at: expect.stringMatching(time), completed_at: expect.stringMatching(time), duration: expect.any(Number) })

    const job = await get(`/jobs/${id}`)
    expect(job).toMatchObject({
      id,
      name: 'hello',
      description: 'says hello',
      script,
      script_type: 'inline',
      vcpus: 1,
      memory_mb: 256,
      environment: { NAME: 'World' },
      stateful: false,
    })
    expect(job).toMatchObject({ user_id: expect.any(String), created_at: expect.stringMatching(time), updated_at: expect.stringMatching(time) })
    expect(await get(`/jobs/${id}/details`)).toMatchObject({ id, workspace_id: null })
    expect(await get('/jobs?page=1&page_size=20')).toMatchObject({ jobs: [{ id }], total: 1, page: 1, page_size: 20 })

    const { logs } = (await get(`/jobs/${id}/logs`)) as { logs: Json[] }
    expect(logs).toEqual(
      expect.arrayContaining([
        expect.objectContaining({ source: 'stdout', level: 'info', message: expect.stringContaining('Hello World'), timestamp: expect.stringMatching(time) }),
        expect.objectContaining({ source: 'stderr', level: 'error', message: 'oops' }),
      ]),
    )
    expect(await get(`/jobs/${id}/vm-info`)).toMatchObject({
      vm_id: expect.any(String),
      agent_id: expect.any(String),
      ip_address: '',
      ipv4_address: '',
      ipv6_address: '',
    })

    const again = await send('POST', `/jobs/${id}/run`, { environment: { NAME: 'Mags' } })
    expect(again.body).toMatchObject({ id: expect.stringMatching(uuid), job_id: id, job_name: 'hello', exit_code: null, error: null })
    expect(Object.keys(again.body)).toEqual(
      expect.arrayContaining('id job_id job_name status started_at completed_at duration_ms exit_code error agent_id'.split(' ')),
    )
    expect(again.body.id).not.toBe(id)
    expect((await ended(String(again.body.id))).logs).toEqual(expect.arrayContaining([expect.stringMatching(/^Hello Mags/)]))
    // The environment of a run is of that run alone.
    expect(await get(`/jobs/${id}`)).toMatchObject({ environment: { NAME: 'World' } })

    const changed = await send('PUT', `/jobs/${id}`, { name: 'hello-2', script: 'exit 3' })
    expect(changed).toMatchObject({ status: 200, body: { id, name: 'hello-2', script: 'exit 3', vcpus: 1 } })
    const third = String((await send('POST', `/jobs/${id}/run`, {})).body.id)
    expect(await ended(third)).toMatchObject({ status: 'failed', exit_code: 3, name: 'hello-2' })

    expect((await send('DELETE', `/jobs/${id}`)).status).toBeLessThan(300)
    for (const path of [`/jobs/${id}`, `/jobs/${id}/status`, `/jobs/${id}/details`]) expect((await send('GET', path)).status).toBe(404)
    expect((await send('POST', `/jobs/${id}/run`, {})).status).toBe(404)
  }, 120_000)

  it('holds it to its size', async () => {
    const id = await create({ name: 'size', vcpus: 1, memory_mb: 256, script: 'exec tail /dev/zero' })
    const status = await ended(id)
    expect(status.status).not.toBe('completed')
    expect(String(status.error_message)).toMatch(/memory/)
  }, 120_000)

  it('refuses values out of range, and unknown ones, naming them', async () => {
    for (const [fields, code, words] of [
      [{ script: 'true' }, 400, 'name'],
      [{ name: 'x' }, 400, 'script'],
      [{ name: 'x', script: '  ' }, 422, 'script'],
      [{ name: 'x', script: 'true', vcpus: 0 }, 422, 'vcpus'],
      [{ name: 'x', script: 'true', vcpus: 100_000 }, 422, 'vcpus'],
      [{ name: 'x', script: 'true', memory_mb: 64 }, 422, 'memory_mb'],
      [{ name: 'x', script: 'true', proxy_port: 70_000 }, 422, 'proxy_port'],
      [{ name: 'x', script: 'true', ip_lease: true }, 400, 'MAGS_IP_PREFIXES'],
      [{ name: 'x', script: 'true', max_retries: 11 }, 422, 'max_retries'],
    ] as const) {
      const { status, body } = await send('POST', '/jobs', fields)
      expect({ fields, status, error: body.error }).toEqual({ fields, status: code, error: expect.stringContaining(words) })
    }
    const { status, body } = await send('POST', '/jobs', { name: 'x', script: 'true', surprise: 1 })
    expect({ status, body }).toMatchObject({ status: 202, body: { warnings: [expect.stringContaining('surprise')] } })
    await ended(String(body.request_id))
    for (const path of ['/jobs/none', '/jobs/none/status', '/jobs/none/logs', '/job-templates/none', '/microvms/none'])
      expect((await send('GET', path)).status).toBe(404)
    expect((await curl(`${daemon.url}/api/v1/jobs`)).status).toBe(401)
  }, 60_000)

  it('runs commands in a job, and cancels it', async () => {
    const id = await create({ name: 'server', persist: true, proxy_port: 9000, script: 'echo ready' })
    const status = await ended(id)
    // Its script has ended, and its sandbox lives on.
    expect(status).toMatchObject({
      status: 'completed',
      completed_at: expect.stringMatching(time),
      persist: true,
      proxy_url: expect.stringMatching(/^http:\/\/[0-9a-f]{12}\./),
    })
    expect(await get('/jobs/server/status')).toMatchObject({ request_id: id })
    const { body } = await send('POST', `/jobs/${id}/ssh`, { command: 'echo out; echo err >&2; exit 4', timeout_seconds: 30 })
    expect(body).toMatchObject({ exit_code: 4, stdout: 'out\n', stderr: 'err\n', duration_ms: expect.any(Number) })
    expect(await send('POST', `/jobs/${id}/ssh`, { command: '   ' })).toMatchObject({ status: 422, body: { error: expect.stringContaining('command') } })

    expect((await send('POST', `/jobs/${id}/cancel`)).status).toBe(200)
    expect((await send('POST', `/jobs/${id}/cancel`)).status).toBe(200)
    expect(await send('POST', `/jobs/${id}/ssh`, { command: 'true' })).toMatchObject({ status: 400 })

    const long = await create({ name: 'long', script: 'echo begun; sleep 1000' })
    await until(long, ({ logs }) => (logs as string[]).includes('begun'))
    expect(await get(`/jobs/${long}/status`)).toMatchObject({ status: 'in_progress', exit_code: null, completed_at: null })
    expect((await send('POST', `/jobs/${long}/cancel`)).status).toBe(200)
    expect(await ended(long)).toMatchObject({ status: 'cancelled' })
  }, 120_000)

  it('keeps /workspace of a stateful job, and nothing else, and lets its runs wait for each other', async () => {
    const script =
      'ls /root /workspace; n=$(cat /workspace/n 2>/dev/null || echo 0); echo "run $((n + 1))"; sleep 0.3; echo $((n + 1)) > /workspace/n; touch /root/lost'
    const id = await create({ name: 'counter', stateful: true, workspace_size_gb: 3, script })
    const runs: string[] = []
    for (let time = 0; time < 3; time += 1) runs.push(String((await send('POST', `/jobs/${id}/run`, {})).body.id))
    for (const [index, run] of runs.entries()) {
      const { status, logs } = await ended(run)
      expect({ status, logs }).toEqual({ status: 'completed', logs: expect.arrayContaining([`run ${index + 2}`]) })
      expect(logs).not.toContain('lost')
    }
    expect(await get(`/jobs/${id}/details`)).toMatchObject({ workspace_id: id })
  }, 240_000)

  it('tries a failed job again, in one log', async () => {
    const id = await create({
      name: 'flaky',
      max_retries: 2,
      retry_backoff_seconds: 1,
      stateful: true,
      script: 'echo x >> /workspace/tries; echo "try $(wc -l < /workspace/tries)"; [ $(wc -l < /workspace/tries) = 3 ]',
    })
    // Followed from its first line to its end, over the tries.
    const events = await collect(`/jobs/${id}/logs?follow=true`)
    const lines = events.filter(({ event, data }) => event === 'log' && data.source === 'stdout').map(({ data }) => data.message)
    expect(lines).toEqual(['try 1', 'try 2', 'try 3'])
    expect(events.at(-1)).toMatchObject({ event: 'end', data: { status: 'completed', exit_code: 0 } })
    expect(await get(`/jobs/${id}/status`)).toMatchObject({ status: 'completed', attempt: 3 })
  }, 240_000)

  it('makes templates with revisions, and jobs of them', async () => {
    const made = await send('POST', '/job-templates', {
      name: 'greet',
      description: 'greets',
      script: 'echo "hi $WHO"',
      script_type: 'inline',
      vcpus: 1,
      memory_mb: 256,
      environment: { WHO: 'one' },
    })
    const template = { name: 'greet', description: 'greets', script_type: 'inline', default_vcpus: 1, default_memory_mb: 256 }
    expect(made.body).toMatchObject({
      id: expect.any(String),
      user_id: expect.any(String),
      created_at: expect.stringMatching(time),
      updated_at: expect.stringMatching(time),
      ...template,
    })
    const id = String(made.body.id)
    expect(made.body.latest_revision).toMatchObject({
      template_id: id,
      revision: 1,
      script: 'echo "hi $WHO"',
      environment: { WHO: 'one' },
      created_by: expect.any(String),
    })

    const run = await send('POST', `/job-templates/${id}/run`, {})
    expect(run.body).toMatchObject({ id: expect.any(String), job_id: expect.any(String), job_name: 'greet' })
    expect((await ended(String(run.body.id))).logs).toEqual(expect.arrayContaining(['hi one']))

    const changed = await send('PUT', `/job-templates/${id}`, { script: 'echo "hello $WHO"', comment: 'politer' })
    expect(changed.body.latest_revision).toMatchObject({ revision: 2, script: 'echo "hello $WHO"', environment: { WHO: 'one' }, comment: 'politer' })
    const second = await send('POST', `/job-templates/${id}/run`, { environment: { WHO: 'two' } })
    expect((await ended(String(second.body.id))).logs).toEqual(expect.arrayContaining(['hello two']))

    expect(await get(`/job-templates/${id}`)).toMatchObject({ id, latest_revision: { revision: 2 } })
    expect(await get('/job-templates?page=1&page_size=20')).toMatchObject({ total: 1, page: 1, page_size: 20, templates: [{ id }] })
    expect((await send('DELETE', `/job-templates/${id}`)).status).toBeLessThan(300)
    for (const [method, path] of [
      ['GET', `/job-templates/${id}`],
      ['POST', `/job-templates/${id}/run`],
    ] as const)
      expect((await send(method, path, method === 'POST' ? {} : undefined)).status).toBe(404)
    // What was made of it stays.
    expect(await get(`/jobs?page=1&page_size=20&template_id=${id}`)).toMatchObject({ total: 2 })
  }, 120_000)

  it('follows a run over a restart of the server, without loss or repeat, and one that ended long ago', async () => {
    const id = await create({ name: 'count', persist: true, script: 'n=0; while [ $n -lt 400 ]; do n=$((n + 1)); echo $n; sleep 0.02; done' })
    const before = await collect(`/jobs/${id}/logs?follow=true`, (events) => events.filter(({ data }) => data.source === 'stdout').length >= 40)
    const cursor = before.at(-1)?.id ?? ''
    await daemon.crash()
    daemon = await startDaemon(settings, place)
    const last = (events: readonly StreamEvent[]) => events.some(({ data }) => data.message === '400')
    const after = await collect(`/jobs/${id}/logs?follow=true`, last, ['-H', `Last-Event-ID: ${cursor}`])
    const numbers = [...before, ...after].filter(({ data }) => data.source === 'stdout').map(({ data }) => Number(data.message))
    expect(numbers).toEqual(Array.from({ length: 400 }, (_, index) => index + 1))
    await send('POST', `/jobs/${id}/cancel`)
    const replay = await collect(`/jobs/${id}/logs?follow=true`)
    expect(replay.filter(({ data }) => data.source === 'stdout')).toHaveLength(400)
    expect(replay.at(-1)).toMatchObject({ event: 'end', data: { status: 'cancelled' } })
  }, 240_000)

  /** Events of a stream that curl reads, until it ends or there are enough. */
  async function collect(
    path: string,
    enough: (events: readonly StreamEvent[]) => boolean = () => false,
    args: readonly string[] = [],
  ): Promise<StreamEvent[]> {
    const child = spawn('curl', ['-sSN', `${daemon.url}/api/v1${path}`, ...token(), ...args], { stdio: ['ignore', 'pipe', 'inherit'] })
    const closed = once(child, 'close')
    const events: StreamEvent[] = []
    let fields: Record<string, string> = {}
    for await (const line of createInterface({ input: child.stdout })) {
      const [, name, value] = /^([a-z]+): ?(.*)$/.exec(line) ?? []
      if (name !== undefined) fields[name] = value ?? ''
      if (line !== '' || fields.data === undefined) continue
      events.push({ id: fields.id, event: fields.event ?? 'message', data: JSON.parse(fields.data) as Json })
      fields = {}
      if (enough(events)) break
    }
    child.kill()
    await closed
    return events
  }
})

interface StreamEvent {
  readonly id: string | undefined
  readonly event: string
  readonly data: Json
}
