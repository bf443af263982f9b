import { describe, expect, it } from 'vitest'
import { Mags } from '../mags.ts'
import { eventText, type StubRequest, sendJson, startStub } from '../testing/start-stub.ts'

const sent = ({ method, url, body }: StubRequest) => [
  `${method} ${url.pathname.slice('/api/v1'.length)}${url.search}`,
  body === '' ? undefined : (JSON.parse(body) as unknown),
]

describe('the Jobs API', () => {
  it('is asked as it is documented', async () => {
    await using stub = await startStub((_request, response) => sendJson(response, 200, { request_id: 'r', id: 'i', job_name: 'n' }))
    const { jobs, templates, microvms } = new Mags({ apiUrl: stub.apiUrl, apiToken: 'secret' })
    expect((await jobs.create({ name: 'a b', script: 'x', memoryMb: 256, environment: { MY_NAME: 'v' }, egress: { allow: ['a.example'] } })).requestId).toBe(
      'r',
    )
    await jobs.list({ page: 2, pageSize: 5, templateId: 't' })
    await jobs.get('a b')
    await jobs.details('j')
    await jobs.update('j', { script: 'y', timeout: null, egress: null, description: undefined })
    expect((await jobs.run('j', { environment: { A: 'b' } })).jobName).toBe('n')
    await jobs.runs('j', { pageSize: 1 })
    await jobs.status('j')
    await jobs.logs('j', { source: 'stderr', after: '1.0' })
    await jobs.cancel('j')
    await jobs.vmInfo('j')
    await jobs.ssh('j', 'ls')
    await jobs.delete('j')
    await templates.create({ name: 't', script: 'x', comment: 'first' })
    await templates.update('t', { vcpus: null, comment: 'second' })
    await templates.run('t')
    await templates.revisions('t')
    await templates.delete('t')
    await microvms.create({ name: 'v', sshPublicKeys: ['k'], isolation: 'auto', egress: 'none' })
    await microvms.stop('v')
    expect(stub.requests.map(sent)).toEqual([
      ['POST /jobs', { type: 'inline', name: 'a b', script: 'x', memory_mb: 256, environment: { MY_NAME: 'v' }, egress: { allow: ['a.example'] } }],
      ['GET /jobs?page=2&page_size=5&template_id=t', undefined],
      ['GET /jobs/a%20b', undefined],
      ['GET /jobs/j/details', undefined],
      ['PUT /jobs/j', { script: 'y', timeout: null, egress: null }],
      ['POST /jobs/j/run', { environment: { A: 'b' } }],
      ['GET /jobs/j/runs?page_size=1', undefined],
      ['GET /jobs/j/status', undefined],
      ['GET /jobs/j/logs?source=stderr&after=1.0', undefined],
      ['POST /jobs/j/cancel', undefined],
      ['GET /jobs/j/vm-info', undefined],
      ['POST /jobs/j/ssh', { command: 'ls', timeout_seconds: 30 }],
      ['DELETE /jobs/j', undefined],
      ['POST /job-templates', { script_type: 'inline', name: 't', script: 'x', comment: 'first' }],
      ['PUT /job-templates/t', { vcpus: null, comment: 'second' }],
      ['POST /job-templates/t/run', {}],
      ['GET /job-templates/t/revisions', undefined],
      ['DELETE /job-templates/t', undefined],
      ['POST /microvms', { name: 'v', ssh_public_keys: ['k'], isolation: 'auto', egress: 'none' }],
      ['POST /microvms/v/stop', undefined],
    ])
  })

  it('makes one job though the answer is lost', async () => {
    await using stub = await startStub((_request, response, number) => (number % 2 === 1 ? response.destroy() : sendJson(response, 202, { id: 'r' })))
    const { jobs, templates, microvms } = new Mags({ apiUrl: stub.apiUrl, apiToken: 'secret' })
    await jobs.create({ name: 'j', script: 'x' })
    await jobs.run('j')
    await templates.create({ name: 't', script: 'x' })
    await templates.run('t')
    await microvms.create({ name: 'v' })
    const keys = stub.requests.map(({ headers }) => headers['idempotency-key'])
    expect(keys).toHaveLength(10)
    for (let at = 0; at < 10; at += 2) expect(keys[at + 1]).toBe(keys[at])
    expect(new Set(keys).size).toBe(5)
  })

  it('is followed in its own words', async () => {
    const row = { timestamp: '2026-01-02T03:00:00.000Z', level: 'info', message: 'hi', source: 'stdout' }
    await using stub = await startStub((_request, response) =>
      response.writeHead(200, { 'content-type': 'text/event-stream' }).end(eventText('log', row, '1.0') + eventText('end', { status: 'failed', exit_code: 3 })),
    )
    const { jobs } = new Mags({ apiUrl: stub.apiUrl, apiToken: 'secret' })
    const events = await Array.fromAsync(jobs.followEvents('j'))
    expect(events).toMatchObject([
      { type: 'log', row: { message: 'hi', cursor: '1.0' } },
      { type: 'end', status: 'failed', exitCode: 3 },
    ])
    expect(stub.requests.map(sent)).toEqual([['GET /jobs/j/logs?follow=true', undefined]])
  })
})
