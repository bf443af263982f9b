import { describe, expect, it } from 'vitest'
import { MagsApiError, MagsConnectionError, MagsProtocolError } from '../errors.ts'
import { Mags } from '../mags.ts'
import { sendJson, startStub } from '../testing/start-stub.ts'
import { parseRetryAfter } from './api-error.ts'
import { backoffMs } from './wait.ts'

const accepted = { request_id: 'r1', status: 'accepted', message: 'Mags job submitted successfully' }
const client = (apiUrl: string, options = {}) => new Mags({ apiUrl, apiToken: 'secret', ...options })

describe('run', () => {
  it('sends script, options, token and a key, and gives both spellings back', async () => {
    await using stub = await startStub((_request, response) => sendJson(response, 202, accepted))
    const job = await client(stub.apiUrl).run('echo hi', { memoryMb: 64, environment: { A: 'b' }, noSleep: undefined })
    expect([job.requestId, job.request_id]).toEqual(['r1', 'r1'])
    const [request] = stub.requests
    expect(JSON.parse(request?.body ?? '')).toEqual({ script: 'echo hi', memory_mb: 64, environment: { A: 'b' } })
    expect(request?.headers).toMatchObject({ authorization: 'Bearer secret', 'content-type': 'application/json' })
    expect(request?.headers['idempotency-key']).toMatch(/^[0-9a-f-]{36}$/)
  })

  it('repeats a submit whose answer was lost, with the same key', async () => {
    await using stub = await startStub((_request, response, number) => (number < 3 ? response.destroy() : sendJson(response, 202, accepted)))
    expect((await client(stub.apiUrl).run('x')).requestId).toBe('r1')
    const keys = stub.requests.map((request) => request.headers['idempotency-key'])
    expect(keys).toHaveLength(3)
    expect(new Set(keys).size).toBe(1)
  })

  it('waits for a full server as asked, and gives up on one that asks for too long', async () => {
    await using stub = await startStub((_request, response, number) =>
      number === 1 ? sendJson(response, 503, { error: 'full', code: 'no_capacity' }, { 'retry-after': '0' }) : sendJson(response, 202, accepted),
    )
    const pauses: unknown[] = []
    const told = new Mags({ apiUrl: stub.apiUrl, apiToken: 't', onRetry: (reason, delayMs) => pauses.push([reason instanceof MagsApiError, delayMs > 0]) })
    expect((await told.run('x')).requestId).toBe('r1')
    expect(pauses).toEqual([[true, true]])
    await using full = await startStub((_request, response) =>
      sendJson(response, 503, { error: 'full', code: 'no_capacity', details: { queued: 9 } }, { 'retry-after': '3600' }),
    )
    const error = await client(full.apiUrl)
      .run('x')
      .catch((thrown: unknown) => thrown)
    expect(error).toBeInstanceOf(MagsApiError)
    expect(error).toMatchObject({ status: 503, code: 'no_capacity', message: 'full', retryAfterSeconds: 3600, details: { queued: 9 } })
    expect(full.requests).toHaveLength(1)
  })
})

describe('errors', () => {
  it('does not repeat a command whose answer was lost', async () => {
    await using stub = await startStub((_request, response) => response.destroy())
    await expect(client(stub.apiUrl).exec('web', 'rm x')).rejects.toThrow(MagsConnectionError)
    expect(stub.requests).toHaveLength(1)
  })

  it('names address and next step when nothing listens', async () => {
    const stub = await startStub(() => undefined)
    await stub[Symbol.asyncDispose]()
    const error = await client(stub.apiUrl, { maxRetries: 0 })
      .list()
      .catch((thrown: unknown) => thrown)
    expect(error).toMatchObject({ code: 'ECONNREFUSED', unsent: true, apiUrl: stub.apiUrl })
    expect(String(error)).toContain(`${stub.apiUrl} (connection refused). Start one with 'mags server'`)
  })

  it('limits the time of a request', async () => {
    await using stub = await startStub(() => undefined)
    await expect(client(stub.apiUrl, { timeout: 50 }).status('web')).rejects.toMatchObject({ code: 'TIMEOUT' })
    expect(stub.requests).toHaveLength(1)
  })

  it('rejects with the reason of an aborted signal', async () => {
    const controller = new AbortController()
    await using stub = await startStub(() => controller.abort(new Error('changed my mind')))
    await expect(client(stub.apiUrl).status('web', { signal: controller.signal })).rejects.toThrow('changed my mind')
  })

  it('explains answers that are not from Mags', async () => {
    await using stub = await startStub((_request, response, number) => {
      if (number === 1) response.writeHead(404, { 'content-type': 'text/html' }).end('<h1>no</h1>')
      else if (number === 2) response.writeHead(301, { location: 'https://elsewhere/' }).end()
      else response.end('<html>')
    })
    await expect(client(stub.apiUrl).status('a')).rejects.toMatchObject({ code: 'http_404', message: expect.stringContaining('MAGS_API_URL') })
    await expect(client(stub.apiUrl).status('a')).rejects.toMatchObject({ code: 'http_301', message: expect.stringContaining('https://elsewhere/') })
    await expect(client(stub.apiUrl).status('a')).rejects.toThrow(MagsProtocolError)
  })

  it('findJob gives null only for a job that is not there', async () => {
    await using stub = await startStub((_request, response, number) =>
      number === 1 ? sendJson(response, 404, { error: 'no', code: 'not_found' }) : sendJson(response, 401, { error: 'no', code: 'unauthorized' }),
    )
    expect(await client(stub.apiUrl).findJob('web/1')).toBe(null)
    expect(stub.requests[0]?.url.pathname).toBe('/api/v1/mags-jobs/web%2F1/status')
    await expect(client(stub.apiUrl).findJob('web')).rejects.toThrow(MagsApiError)
  })
})

describe('intervals', () => {
  it('grow, are bounded and vary', () => {
    expect([0, 1, 2, 50].map((attempt) => backoffMs(attempt, () => 1))).toEqual([100, 200, 400, 5000])
    expect(backoffMs(0, () => 0)).toBe(50)
  })

  it('read both forms of Retry-After', () => {
    expect(parseRetryAfter('7')).toBe(7)
    expect(parseRetryAfter('Thu, 01 Jan 1970 00:00:10 GMT', 4_000)).toBe(6)
    expect([parseRetryAfter('soon'), parseRetryAfter(undefined)]).toEqual([undefined, undefined])
  })
})
