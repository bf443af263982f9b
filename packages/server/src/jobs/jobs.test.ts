import { availableParallelism } from 'node:os'
import { MagsError } from '@mags/protocol'
import { describe, expect, it } from 'vitest'
import { startTestServer } from '../testing/test-server.ts'

const until = <T>(probe: () => T) => expect.poll(probe, { timeout: 10_000, interval: 5 })

describe('the life of a job', () => {
  it('runs a script and reports its output, exit code and breakdown', async () => {
    await using mags = await startTestServer()
    const answer = await mags.call('POST', '/mags-jobs', { script: 'echo hello\nerr oops\nenv A', environment: { A: 'b' } })
    expect(answer.status).toBe(202)
    expect(answer.body).toEqual({ request_id: expect.any(String), status: 'accepted', message: 'Mags job submitted successfully' })
    const status = await mags.ended(String(answer.body.request_id))
    expect(status).toMatchObject({
      status: 'completed',
      exit_code: 0,
      error: null,
      warm: true,
      isolation: 'container',
      image: 'debian-12',
      sleeping: false,
      url: null,
    })
    expect(status.name).toMatch(/^mags-job-\d+$/)
    expect(status.vm_id).toMatch(/^[0-9a-f]{12}$/)
    expect(status.subdomain).toMatch(/^[0-9a-f]{12}$/)
    const {
      queue_duration_ms: queue,
      acquire_duration_ms: acquire,
      attach_duration_ms: attach,
      first_byte_duration_ms: firstByte,
      start_duration_ms: start,
    } = status
    expect(Number(queue) + Number(acquire) + Number(attach) + Number(firstByte)).toBeCloseTo(Number(start), 3)
    expect(status.script_duration_ms).toBeGreaterThanOrEqual(0)
    const { logs } = await mags.rows(status.request_id)
    expect(logs.map(({ message, level, source }) => `${source} ${level} ${message}`)).toEqual(['stdout info hello', 'stderr error oops', 'stdout info b'])
    await until(() => mags.host.sandboxes.size).toBe(0)
  })

  it('takes the exit code of the script', async () => {
    await using mags = await startTestServer()
    expect(await mags.ended(await mags.submit({ script: 'exit 3' }))).toMatchObject({
      status: 'error',
      exit_code: 3,
      error: 'the script ended with exit code 3',
    })
  })

  it('builds the address of a job when there is a domain for it', async () => {
    await using mags = await startTestServer({ deps: { appsUrl: 'https://apps.example.org:8443' } })
    const status = await mags.status(await mags.submit({ script: 'wait' }))
    expect(status.url).toBe(`https://${status.subdomain}.apps.example.org:8443`)
  })

  it('asks for the machine that the job wants', async () => {
    await using mags = await startTestServer()
    await mags.ended(await mags.submit({ script: 'echo', vcpus: 2, memory_mb: 1024, disk_gb: 5, rootfs_type: 'alpine', isolation: 'container' }))
    expect(mags.host.acquired).toEqual([
      { image: 'alpine', isolation: 'container', vcpus: 2, memoryMb: 1024, diskGb: 5, persistent: false, share: 'local', shares: 1 },
    ])
  })

  it.each(['wait', 'stubborn'])('ends a script that runs over its time (%s)', async (script) => {
    await using mags = await startTestServer()
    const id = await mags.submit({ script, timeout: 1 })
    expect(await mags.ended(id)).toMatchObject({ status: 'error', exit_code: 124, error: 'timed out after 1 s' })
    expect((await mags.rows(id)).logs).toMatchObject([{ source: 'system', level: 'error', message: 'timed out after 1 s' }])
  })

  it('ends as error when no sandbox can be made', async () => {
    await using mags = await startTestServer({
      beforeAcquire: () => {
        throw new MagsError('sandbox_failed', 'crun: no space left on device')
      },
    })
    const id = await mags.submit({ script: 'echo' })
    expect(await mags.ended(id)).toMatchObject({ status: 'error', exit_code: null, error: 'crun: no space left on device', vm_id: null, started_at: null })
    expect((await mags.rows(id)).logs).toMatchObject([{ source: 'system', level: 'error', message: 'crun: no space left on device' }])
  })

  it('ends as error when the sandbox is lost, with the words of the host', async () => {
    await using mags = await startTestServer({ behaviour: () => ({ kind: 'sandbox-lost', exitCode: 137, reason: 'out of memory' }) })
    const id = await mags.submit({ script: 'echo' })
    expect(await mags.ended(id)).toMatchObject({ status: 'error', exit_code: 137, error: 'out of memory' })
    expect((await mags.rows(id)).logs).toMatchObject([{ source: 'system', message: 'out of memory' }])
  })

  it('does not wait for the sandbox to be destroyed', async () => {
    await using mags = await startTestServer()
    const id = await mags.submit({ script: 'wait' })
    const [sandbox] = await untilSandboxes(mags.host.sandboxes, 1)
    if (!sandbox) throw new Error('no sandbox')
    let destroyed: () => void = () => undefined
    sandbox.destroy = () =>
      new Promise((resolve) => {
        destroyed = resolve
      })
    sandbox.end({ kind: 'exited', exitCode: 0 })
    expect(await mags.ended(id)).toMatchObject({ status: 'completed' })
    destroyed()
    mags.host.sandboxes.clear()
  })
})

describe('stop', () => {
  it.each(['wait', 'stubborn'])('ends a running job (%s), and is idempotent', async (script) => {
    await using mags = await startTestServer()
    const id = await mags.submit({ script })
    await untilSandboxes(mags.host.sandboxes, 1)
    await until(async () => (await mags.status(id)).status).toBe('running')
    const [first, second] = await Promise.all([mags.call('POST', `/mags-jobs/${id}/stop`), mags.call('POST', `/mags-jobs/${id}/stop`)])
    expect(first).toMatchObject({ status: 200, body: { success: true, message: 'Job stopped' } })
    expect(second).toMatchObject({ status: 200, body: { success: true } })
    expect((await mags.status(id)).status).toBe('stopped')
    expect((await mags.call('POST', `/mags-jobs/${id}/stop`)).body).toEqual({ success: true, message: 'Job is over already (stopped)' })
    await until(() => mags.host.sandboxes.size).toBe(0)
  })

  it('ends a job that waits for a sandbox', async () => {
    await using mags = await startTestServer({
      beforeAcquire: (_spec, abort) => new Promise((_resolve, reject) => abort?.addEventListener('abort', () => reject(abort.reason))),
    })
    const id = await mags.submit({ script: 'echo' })
    expect((await mags.call('POST', `/mags-jobs/${id}/stop`)).body).toEqual({ success: true, message: 'Job stopped' })
    expect(await mags.status(id)).toMatchObject({ status: 'stopped', vm_id: null })
  })

  it('ends a job that is not dispatched yet', async () => {
    await using mags = await startTestServer({ held: true })
    const id = await mags.submit({ script: 'echo' })
    await mags.call('POST', `/mags-jobs/${id}/stop`)
    await mags.server.start()
    expect(await mags.status(id)).toMatchObject({ status: 'stopped' })
    expect(mags.host.acquired).toEqual([])
  })

  it('gives a sandbox back that comes after the stop', async () => {
    const arrived = Promise.withResolvers<void>()
    // Hands it out although it was told to give up, as a host may that had just finished.
    await using mags = await startTestServer({ beforeAcquire: () => arrived.promise, ignoresAbort: true })
    const id = await mags.submit({ script: 'echo ran' })
    await mags.call('POST', `/mags-jobs/${id}/stop`)
    arrived.resolve()
    await until(() => mags.host.released).toBe(1)
    expect(await mags.status(id)).toMatchObject({ status: 'stopped' })
    expect((await mags.rows(id)).logs).toEqual([])
  })
})

describe('a persistent job', () => {
  it('rests as running with the exit code of its script, until it is stopped', async () => {
    await using mags = await startTestServer()
    const id = await mags.submit({ script: 'echo up\nexit 4', persistent: true, name: 'box' })
    await until(async () => (await mags.status(id)).exit_code).toBe(4)
    const status = await mags.status('box')
    expect(status).toMatchObject({ request_id: id, status: 'running', persistent: true, completed_at: null })
    expect(status.start_duration_ms).toBeGreaterThan(0)
    expect(await mags.call('POST', '/mags-jobs/box/exec', { command: 'echo $x\nerr e\nenv STDIN\nenv E', stdin: 'in', environment: { E: '1' } })).toMatchObject(
      {
        status: 200,
        body: { exit_code: 0, stdout: '$x\nin\n1\n', stderr: 'e\n', truncated: false },
      },
    )
    await mags.call('POST', `/mags-jobs/${id}/stop`)
    expect(await mags.status(id)).toMatchObject({ status: 'stopped', exit_code: 4 })
    expect(await mags.call('POST', `/mags-jobs/${id}/exec`, { command: 'echo' })).toMatchObject({ status: 400, body: { code: 'job_not_running' } })
  })

  it('ends as error when its sandbox is lost', async () => {
    await using mags = await startTestServer()
    const id = await mags.submit({ script: 'echo up', persistent: true })
    await until(async () => (await mags.status(id)).exit_code).toBe(0)
    await [...mags.host.sandboxes.values()][0]?.destroy()
    expect(await mags.ended(id)).toMatchObject({ status: 'error', error: 'the sandbox was lost', exit_code: 0 })
  })

  it('has no deadline unless one is given', async () => {
    await using mags = await startTestServer()
    const id = await mags.submit({ script: 'wait', persistent: true, timeout: 1 })
    expect(await mags.ended(id)).toMatchObject({ status: 'error', exit_code: 124 })
  })

  it('can be changed while it is not over', async () => {
    await using mags = await startTestServer()
    const id = await mags.submit({ script: 'echo', persistent: true })
    expect((await mags.call('PATCH', `/mags-jobs/${id}`, { no_sleep: true, startup_command: 'node .' })).body).toEqual({
      success: true,
      message: 'Job updated',
    })
    expect(await mags.status(id)).toMatchObject({ no_sleep: true, startup_command: 'node .' })
    expect(await mags.call('PATCH', `/mags-jobs/${id}`, { nosleep: true })).toMatchObject({ status: 400, body: { error: 'unknown member "nosleep"' } })
    await mags.call('POST', `/mags-jobs/${id}/stop`)
    expect(await mags.call('PATCH', `/mags-jobs/${id}`, { no_sleep: true })).toMatchObject({ status: 400, body: { code: 'job_not_running' } })
  })
})

describe('exec', () => {
  it('ends a command at its timeout with 124', async () => {
    await using mags = await startTestServer()
    const id = await mags.submit({ script: 'wait' })
    await untilSandboxes(mags.host.sandboxes, 1)
    await until(async () => (await mags.status(id)).status).toBe('running')
    expect((await mags.call('POST', `/mags-jobs/${id}/exec`, { command: 'stubborn', timeout_seconds: 1 })).body).toMatchObject({ exit_code: 124 })
  })

  it('bounds what it collects', async () => {
    await using mags = await startTestServer()
    const id = await mags.submit({ script: 'echo', persistent: true })
    await until(async () => (await mags.status(id)).exit_code).toBe(0)
    const command = Array.from({ length: 12 }, () => `echo ${'x'.repeat(10_000)}`).join('\n')
    const small = await mags.call('POST', `/mags-jobs/${id}/exec`, { command })
    expect(small.body).toMatchObject({ truncated: false })
    const [sandbox] = mags.host.sandboxes.values()
    if (!sandbox) throw new Error('no sandbox')
    sandbox.exec = async (_request, onOutput) => {
      for (let i = 0; i < 40; i++) await onOutput('stdout', Buffer.alloc(64 * 1024, 97))
      return { kind: 'exited', exitCode: 0, timedOut: false }
    }
    const large = await mags.call('POST', `/mags-jobs/${id}/exec`, { command: 'flood' })
    expect(large.body).toMatchObject({ truncated: true, exit_code: 0 })
    expect(String(large.body.stdout).length).toBe(1024 * 1024)
  })

  it('streams', async () => {
    await using mags = await startTestServer()
    const id = await mags.submit({ script: 'echo', persistent: true })
    await until(async () => (await mags.status(id)).exit_code).toBe(0)
    const { body } = await mags.call('POST', `/mags-jobs/${id}/exec?stream=true`, { command: 'echo a\nerr b\nprintf c\nexit 2' })
    const events = String(body.text)
      .trim()
      .split('\n\n')
      .map((event) => event.split('\n').map((line) => line.replace(/^\w+: /, '')))
    expect(events.map(([name, data]) => [name, JSON.parse(data ?? '')])).toMatchObject([
      ['log', { message: 'a', source: 'stdout', level: 'info' }],
      ['log', { message: 'b', source: 'stderr', level: 'error' }],
      ['log', { message: 'c', source: 'stdout', partial: true }],
      ['end', { exit_code: 2 }],
    ])
  })
})

describe('the queue', () => {
  it('refuses with 503 past its bound, and takes new jobs when there is room', async () => {
    await using mags = await startTestServer({ held: true, deps: { limits: { maxPendingJobs: 2 } } })
    await mags.submit({ script: 'echo' })
    const second = await mags.submit({ script: 'echo' })
    const refused = await mags.call('POST', '/mags-jobs', { script: 'echo' })
    expect(refused).toMatchObject({ status: 503, body: { code: 'no_capacity' }, headers: { 'retry-after': '2' } })
    await mags.call('POST', `/mags-jobs/${second}/stop`)
    await mags.submit({ script: 'echo' })
  })

  it('counts submits that arrive at once', async () => {
    await using mags = await startTestServer({ held: true, deps: { limits: { maxPendingJobs: 5 } } })
    const answers = await Promise.all(Array.from({ length: 20 }, () => mags.call('POST', '/mags-jobs', { script: 'echo' })))
    expect(answers.filter(({ status }) => status === 202)).toHaveLength(5)
    expect(answers.filter(({ status }) => status === 503)).toHaveLength(15)
  })

  it('runs what waits in order of arrival, large jobs too', async () => {
    await using mags = await startTestServer({ held: true })
    const ids: string[] = []
    for (const [index, image] of ['alpine', 'debian-12', 'alpine'].entries())
      ids.push(await mags.submit({ script: `echo ${'x'.repeat(index * 40_000)}`, image }))
    await mags.server.start()
    for (const id of ids) expect(await mags.ended(id)).toMatchObject({ status: 'completed' })
    expect(mags.host.acquired.map(({ image }) => image)).toEqual(['alpine', 'debian-12', 'alpine'])
  })

  it('asks for few sandboxes at once for one account, so that another one need not stand behind them', async () => {
    const open = Promise.withResolvers<void>()
    await using mags = await startTestServer({ beforeAcquire: () => open.promise })
    const ids = await Promise.all(Array.from({ length: 100 }, () => mags.submit({ script: 'echo' })))
    expect(mags.host.acquired).toHaveLength(Math.max(8, 2 * availableParallelism()))
    open.resolve()
    for (const id of ids) expect((await mags.ended(id)).status).toBe('completed')
  })
})

describe('quotas of an account', () => {
  it('refuses what would wait beyond them, and says when to try again', async () => {
    await using mags = await startTestServer({ held: true, deps: { limits: { maxPendingJobsPerAccount: 1 } } })
    await mags.submit({ script: 'echo' })
    const refused = await mags.call('POST', '/mags-jobs', { script: 'echo' })
    expect(refused).toMatchObject({
      ...{ status: 429, headers: { 'retry-after': '5' } },
      body: { code: 'rate_limited', error: '1 job is waiting already for this account; try again in a moment' },
    })
  })
})

describe('lists and names', () => {
  it('lists newest first, with pages and a filter', async () => {
    await using mags = await startTestServer()
    const ids: string[] = []
    for (const script of ['echo', 'exit 1', 'echo']) {
      const id = await mags.submit({ script })
      await mags.ended(id)
      ids.unshift(id)
    }
    const all = await mags.call('GET', '/mags-jobs')
    expect(all.body).toMatchObject({ total: 3, page: 1, page_size: 20 })
    expect((all.body.jobs as { request_id: string }[]).map((job) => job.request_id)).toEqual(ids)
    expect(Object.keys((all.body.jobs as object[])[0] ?? {}).sort()).toEqual([
      'created_at',
      'exit_code',
      'job_id',
      'name',
      'request_id',
      'status',
      'workspace_id',
    ])
    expect((await mags.call('GET', '/mags-jobs?page=2&page_size=2')).body).toMatchObject({ jobs: [{ request_id: ids[2] }], total: 3, page: 2, page_size: 2 })
    expect((await mags.call('GET', '/mags-jobs?status=error')).body).toMatchObject({ jobs: [{ request_id: ids[1] }], total: 1 })
    expect(await mags.call('GET', '/mags-jobs?page_size=101')).toMatchObject({
      status: 400,
      body: { error: 'page_size: must be a whole number from 1 to 100' },
    })
  })

  it('finds by name the newest that is not over, else the newest', async () => {
    await using mags = await startTestServer()
    const first = await mags.submit({ script: 'wait', name: 'web' })
    const second = await mags.submit({ script: 'echo', name: 'web' })
    await mags.ended(second)
    expect((await mags.status('web')).request_id).toBe(first)
    await mags.call('POST', '/mags-jobs/web/stop')
    expect((await mags.status('web')).request_id).toBe(second)
    expect(await mags.call('GET', '/mags-jobs/nothing/status')).toMatchObject({ status: 404, body: { code: 'not_found' } })
  })
})

async function untilSandboxes<T>(sandboxes: ReadonlyMap<string, T>, count: number): Promise<T[]> {
  await until(() => sandboxes.size).toBe(count)
  return [...sandboxes.values()]
}
