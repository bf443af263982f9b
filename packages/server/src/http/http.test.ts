import { connect } from 'node:net'
import type { InjectOptions } from 'fastify'
import { describe, expect, it } from 'vitest'
import { startTestServer } from '../testing/test-server.ts'

describe('HTTP rules', () => {
  it('asks for a token everywhere under /api but health', async () => {
    await using mags = await startTestServer()
    const get = (url: string, authorization?: string) =>
      mags.server.app.inject({ method: 'GET', url, headers: authorization === undefined ? {} : { authorization } })
    for (const authorization of [undefined, 'Bearer', 'Bearer x', `Basic ${mags.token}`, `Bearer ${mags.token}x`]) {
      const answer = await get('/api/v1/mags-jobs', authorization)
      expect(answer.statusCode).toBe(401)
      expect(answer.json()).toMatchObject({ code: 'unauthorized', error: expect.any(String) })
      expect(answer.headers['www-authenticate']).toBe('Bearer')
    }
    expect((await get('/api/v1/mags-jobs', `bearer ${mags.token}`)).statusCode).toBe(200)
    expect((await get('/api/v1/health')).json()).toEqual({ status: 'ok', version: '0.0.0-test', isolation: 'container' })
  })

  it('answers under v2 too', async () => {
    await using mags = await startTestServer()
    const headers = { authorization: `Bearer ${mags.token}` }
    const submitted = await mags.server.app.inject({ method: 'POST', url: '/api/v2/mags-jobs', headers, payload: { script: 'echo' } })
    expect(submitted.statusCode).toBe(202)
    expect(
      (await mags.server.app.inject({ method: 'GET', url: `/api/v2/mags-jobs/${submitted.json<{ request_id: string }>().request_id}/status`, headers }))
        .statusCode,
    ).toBe(200)
  })

  it('has JSON for every error', async () => {
    await using mags = await startTestServer()
    const headers = { authorization: `Bearer ${mags.token}` }
    const send = async (options: InjectOptions) => {
      const answer = await mags.server.app.inject({ ...options, headers: { ...headers, ...options.headers } })
      return { status: answer.statusCode, ...answer.json<{ error: string; code: string }>(), allow: answer.headers.allow }
    }
    const json = { 'content-type': 'application/json' }
    expect(await send({ method: 'GET', url: '/nothing' })).toMatchObject({ status: 404, code: 'not_found' })
    expect(await send({ method: 'GET', url: '/api/v1/%zz' })).toMatchObject({ status: 400, code: 'bad_request' })
    expect(await send({ method: 'DELETE', url: '/api/v1/mags-jobs' })).toMatchObject({ status: 405, code: 'method_not_allowed', allow: 'GET, POST' })
    expect(
      await send({ method: 'POST', url: '/api/v1/mags-jobs', payload: 'script=x', headers: { 'content-type': 'application/x-www-form-urlencoded' } }),
    ).toMatchObject({
      status: 415,
      code: 'unsupported_media_type',
    })
    // What curl -d '' sends.
    const nothing = { 'content-type': 'application/x-www-form-urlencoded', 'content-length': '0' }
    expect(await send({ method: 'POST', url: '/api/v1/jobs/none/cancel', payload: '', headers: nothing })).toMatchObject({ status: 404 })
    expect(await send({ method: 'POST', url: '/api/v1/mags-jobs', payload: '', headers: nothing })).toMatchObject({
      status: 400,
      error: 'the body must be a JSON object',
    })
    expect(await send({ method: 'POST', url: '/api/v1/mags-jobs', payload: '{"script": }', headers: json })).toMatchObject({
      status: 400,
      error: 'the body is not valid JSON: unexpected "}" at line 1, column 12 (position 11)',
    })
    expect(await send({ method: 'POST', url: '/api/v1/mags-jobs', payload: '', headers: json })).toMatchObject({
      status: 400,
      error: 'the body must be a JSON object',
    })
    expect(await send({ method: 'POST', url: '/api/v1/mags-jobs', payload: '[]', headers: json })).toMatchObject({
      status: 400,
      error: 'the body must be a JSON object',
    })
    for (const [path, fault] of [
      ['access', 'port: is required'],
      ['sleep', undefined],
      ['wake', undefined],
    ] as const) {
      const answer = await send({ method: 'POST', url: `/api/v1/mags-jobs/x/${path}`, payload: {} })
      expect(answer).toMatchObject(fault === undefined ? { status: 404, code: 'not_found' } : { status: 400, code: 'bad_request', error: fault })
    }
    expect(await send({ method: 'GET', url: '/api/v1/mags-jobs/x/logs?tail=1' })).toMatchObject({ status: 400, error: 'unknown member "tail"' })
    expect(await send({ method: 'GET', url: `/api/v1/mags-jobs/${'x'.repeat(3000)}/status` })).toMatchObject({ status: 404, code: 'not_found' })
  })

  it('takes a stop without a body', async () => {
    await using mags = await startTestServer()
    const id = await mags.submit({ script: 'echo' })
    await mags.ended(id)
    expect((await mags.call('POST', `/mags-jobs/${id}/stop`, undefined, { 'content-type': 'application/json' })).status).toBe(200)
  })

  it('does not tell a stranger what broke inside', async () => {
    await using mags = await startTestServer()
    mags.host.poolStatus = () => {
      throw new Error('secret path /root/x')
    }
    const answer = await mags.call('GET', '/mags-jobs/pool-status')
    expect(answer).toMatchObject({ status: 500, body: { code: 'internal', details: { error_id: expect.any(String) } } })
    expect(JSON.stringify(answer.body)).not.toContain('secret')
  })

  it('gives the pool, the metrics and the OpenAPI document', async () => {
    await using mags = await startTestServer()
    await mags.ended(await mags.submit({ script: 'echo' }))
    expect((await mags.call('GET', '/mags-jobs/pool-status')).body).toMatchObject({
      idle_vms: 3,
      min_pool_size: 3,
      max_pool_size: 0,
      isolation: 'container',
      hit_rate: 1,
    })
    const metrics = (await mags.server.app.inject('/metrics')).body
    expect(metrics).toContain('mags_jobs_finished_total{status="completed"} 1')
    expect(metrics).toContain('mags_job_start_seconds_count 1')
    expect(metrics).toContain('mags_sandboxes{state="idle"} 3')
    expect(metrics).toMatch(/mags_http_request_seconds_count\{method="POST",route="\/api\/v1\/mags-jobs",status="202"\} 1/)
    const document = (await mags.server.app.inject('/openapi.json')).json<{ openapi: string; paths: Record<string, Record<string, object>> }>()
    expect(document.openapi).toBe('3.1.0')
    expect(document.paths['/api/v1/mags-jobs']?.post).toMatchObject({
      requestBody: { content: { 'application/json': { schema: { required: ['script'], properties: { script: { type: 'string' } } } } } },
    })
    expect(document.paths['/api/v2/mags-jobs/{id}/exec']).toHaveProperty('post')
  })
})

describe('requests that never become whole', () => {
  async function talk(address: string, text: string): Promise<string> {
    const { hostname, port } = new URL(address)
    const socket = connect(Number(port), hostname)
    socket.write(text)
    let answer = ''
    for await (const chunk of socket) answer += String(chunk)
    return answer
  }

  it('are answered with 408 in time', async () => {
    await using mags = await startTestServer({ deps: { limits: { requestTimeoutMs: 200 } } })
    const answer = await talk(
      await mags.listen(),
      `POST /api/v1/mags-jobs HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer ${mags.token}\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{"scr`,
    )
    expect(answer).toMatch(/^HTTP\/1\.1 408 /)
    expect(answer).toContain('"code":"request_timeout"')
    expect((await mags.call('GET', '/mags-jobs')).body.total).toBe(0)
  })

  it('are answered with 400 when they are not HTTP', async () => {
    await using mags = await startTestServer()
    const answer = await talk(await mags.listen(), 'hello\r\n\r\n')
    expect(answer).toMatch(/^HTTP\/1\.1 400 [\s\S]*"code":"bad_request"/)
  })
})
