import { describe, expect, it } from 'vitest'
import { startTestServer } from '../testing/test-server.ts'

describe('submit', () => {
  it('names the field and the rule, and creates nothing', async () => {
    await using mags = await startTestServer({ held: true })
    const cases: [Record<string, unknown>, string, string][] = [
      [{}, 'bad_request', 'script: is required'],
      [{ script: 'x', name: 'a/b' }, 'bad_request', 'name: must be 1 to 63 of A-Z a-z 0-9 . _ -'],
      [{ script: 'x', image: 'plan9' }, 'bad_request', 'image: "plan9" is not an image of this server; it has debian-12, alpine'],
      [{ script: 'x', rootfs_type: 'plan9' }, 'bad_request', 'rootfs_type: "plan9" is not an image of this server; it has debian-12, alpine'],
      [{ script: 'x', rootfs_type: 'alpine', image: 'debian-12' }, 'bad_request', 'rootfs_type: is another name of image; give one of them'],
      [{ script: 'x', vcpus: 5 }, 'bad_request', 'vcpus: at most 4 on this server'],
      [{ script: 'x', memory_mb: 4097 }, 'bad_request', 'memory_mb: at most 4,096 on this server'],
      [{ script: 'x', disk_gb: 21 }, 'bad_request', 'disk_gb: at most 20 on this server'],
      [{ script: 'x', no_sleep: true }, 'bad_request', 'no_sleep: needs persistent to be true'],
      [{ script: 'x', isolation: 'vm' }, 'not_available', 'isolation: "vm" cannot be had on this server: no KVM'],
      [
        { script: 'x', workspace_id: 'w', base_workspace_id: 'w' },
        'bad_request',
        'base_workspace_id: must be another workspace than workspace_id; leave it out to go on with the workspace as it is',
      ],
    ]
    for (const [body, code, error] of cases) {
      const answer = await mags.call('POST', '/mags-jobs', body)
      expect(answer, error).toMatchObject({ status: 400, body: { code, error } })
    }
    const large = await mags.call('POST', '/mags-jobs', { script: 'x'.repeat(1024 * 1024 + 1) })
    expect(large).toMatchObject({ status: 413, body: { code: 'too_large', error: 'script: at most 1 MiB' } })
    expect((await mags.call('GET', '/mags-jobs')).body.total).toBe(0)
  })

  it('takes what clients send for nothing', async () => {
    await using mags = await startTestServer({ held: true })
    await mags.submit({ script: 'x', workspace_id: null, base_workspace_id: null, file_ids: [], timeout: null, startup_command: null, egress: null })
  })

  it('ignores members it does not know and says so', async () => {
    await using mags = await startTestServer({ held: true })
    const answer = await mags.call('POST', '/mags-jobs', { script: 'x', gpu: 1, toString: 2 })
    expect(answer.body.warnings).toEqual(['unknown member "gpu" was ignored', 'unknown member "toString" was ignored'])
  })

  it('refuses a body over 4 MiB naming the script', async () => {
    await using mags = await startTestServer({ held: true })
    const answer = await mags.call('POST', '/mags-jobs', { script: 'x'.repeat(10 * 1024 * 1024) })
    expect(answer).toMatchObject({ status: 413, body: { code: 'too_large', error: 'script: at most 1 MiB; the body is over 4 MiB' } })
  })

  it('reports how long storing took', async () => {
    await using mags = await startTestServer({ held: true })
    expect((await mags.call('POST', '/mags-jobs', { script: 'x' })).headers['server-timing']).toMatch(/^store;dur=[\d.]+$/)
  })
})

describe('Idempotency-Key', () => {
  const headers = { 'idempotency-key': 'k1' }

  it('gives the first answer back for the same body in any order', async () => {
    await using mags = await startTestServer({ held: true })
    const first = await mags.call('POST', '/mags-jobs', { script: 'x', name: 'n', environment: { A: '1', B: '2' } }, headers)
    const second = await mags.call('POST', '/mags-jobs', { environment: { B: '2', A: '1' }, name: 'n', script: 'x' }, headers)
    expect(second).toMatchObject({ status: 202, body: first.body })
    expect((await mags.call('GET', '/mags-jobs')).body.total).toBe(1)
  })

  it('refuses another body', async () => {
    await using mags = await startTestServer({ held: true })
    await mags.call('POST', '/mags-jobs', { script: 'x' }, headers)
    expect(await mags.call('POST', '/mags-jobs', { script: 'y' }, headers)).toMatchObject({ status: 409, body: { code: 'idempotency_conflict' } })
    expect(await mags.call('POST', '/mags-jobs', { script: 'x' }, { 'idempotency-key': 'a b' })).toMatchObject({ status: 400 })
  })

  it('makes one job of submits that arrive at once, and runs it once', async () => {
    await using mags = await startTestServer()
    const answers = await Promise.all(Array.from({ length: 20 }, () => mags.call('POST', '/mags-jobs', { script: 'echo' }, headers)))
    expect(new Set(answers.map(({ body }) => body.request_id)).size).toBe(1)
    await mags.ended(String(answers[0]?.body.request_id))
    expect(mags.host.acquired).toHaveLength(1)
  })

  it('forgets a key after 24 hours', async () => {
    let now = Date.parse('2026-01-01T00:00:00Z')
    await using mags = await startTestServer({ held: true, deps: { clock: () => now } })
    const first = await mags.call('POST', '/mags-jobs', { script: 'x' }, headers)
    now += 24 * 3600 * 1000 + 1
    const second = await mags.call('POST', '/mags-jobs', { script: 'y' }, headers)
    expect(second.status).toBe(202)
    expect(second.body.request_id).not.toBe(first.body.request_id)
  })
})
