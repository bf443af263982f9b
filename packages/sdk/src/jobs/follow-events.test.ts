import type { ServerResponse } from 'node:http'
import { describe, expect, it } from 'vitest'
import { MagsApiError, MagsConnectionError } from '../errors.ts'
import { Mags } from '../mags.ts'
import { eventText, sendJson, startStub } from '../testing/start-stub.ts'

const row = (message: string) => ({ timestamp: '2026-01-01T00:00:00.000Z', level: 'info', source: 'stdout', message })
const end = eventText('end', { status: 'completed', exit_code: 0 })
const client = (apiUrl: string) => new Mags({ apiUrl, apiToken: 'secret' })

function stream(response: ServerResponse, text: string) {
  response.writeHead(200, { 'content-type': 'text/event-stream' })
  response.write(text)
  return response
}

describe('followLogs', () => {
  it('goes on behind the last whole row after cut, closed and refused connections', async () => {
    await using stub = await startStub((request, response, number) => {
      const after = Number(request.url.searchParams.get('after') ?? 0)
      if (number === 1) stream(response, `: hello\n\n${eventText('log', row('1'), '1')}${eventText('log', row('2'), '2')}id: 3\nevent: log\ndata: {"mess`)
      if (number === 1) setImmediate(() => response.destroy())
      else if (number === 2) sendJson(response, 503, { error: 'starting', code: 'no_capacity' }, { 'retry-after': '0' })
      // The row after which it asks comes once more: it must not show.
      else if (number === 3) stream(response, `${eventText('log', row(String(after)), String(after))}${eventText('log', row('3'), '3')}`).end()
      else stream(response, `${eventText('log', row(String(after + 1)), String(after + 1))}${end}`).end()
    })
    const rows = await Array.fromAsync(client(stub.apiUrl).followLogs('web', { source: 'stdout' }))
    expect(rows.map(({ message, cursor }) => [message, cursor])).toEqual([
      ['1', '1'],
      ['2', '2'],
      ['3', '3'],
      ['4', '4'],
    ])
    const asked = stub.requests.map(({ url, headers }) => [url.searchParams.get('after'), headers['last-event-id'] ?? null])
    expect(asked).toEqual([
      [null, null],
      ['2', '2'],
      ['2', '2'],
      ['3', '3'],
    ])
    expect(stub.requests[0]?.url.search).toBe('?follow=true&source=stdout')
  })

  it('tells of each try that failed', async () => {
    await using stub = await startStub((_request, response, number) => {
      if (number < 3) response.destroy()
      else if (number === 3) stream(response, eventText('log', row('1'), '1')).end()
      else stream(response, end).end()
    })
    const told: [unknown, number][] = []
    await Array.fromAsync(client(stub.apiUrl).followLogs('web', { onDisconnect: (error, failures) => void told.push([error, failures]) }))
    expect(told.map(([, failures]) => failures)).toEqual([0, 1, 0])
    expect(told.every(([error]) => error instanceof MagsConnectionError)).toBe(true)
    const enough = () => Promise.reject(new Error('enough'))
    await using gone = await startStub((_request, response) => response.destroy())
    await expect(Array.fromAsync(client(gone.apiUrl).followLogs('web', { onDisconnect: enough }))).rejects.toThrow('enough')
  })

  it('gives up on an answer that stays', async () => {
    await using stub = await startStub((_request, response) => sendJson(response, 404, { error: 'no such job', code: 'not_found' }))
    await expect(Array.fromAsync(client(stub.apiUrl).followLogs('web'))).rejects.toThrow(MagsApiError)
    expect(stub.requests).toHaveLength(1)
  })

  it('gives up when the server does not come back in time', async () => {
    await using stub = await startStub((_request, response) => response.destroy())
    await expect(Array.fromAsync(client(stub.apiUrl).followLogs('web', { reconnectForMs: 0 }))).rejects.toThrow(MagsConnectionError)
  })

  it('ends at once when aborted, and closes its connection when left', async () => {
    const closed = Promise.withResolvers<void>()
    await using stub = await startStub((_request, response) => {
      stream(response, eventText('log', row('1'), '1'))
      response.on('close', () => closed.resolve())
    })
    for await (const { message } of client(stub.apiUrl).followLogs('web')) {
      expect(message).toBe('1')
      break
    }
    await closed.promise
    const controller = new AbortController()
    const rows = client(stub.apiUrl).followLogs('web', { signal: controller.signal })
    await rows.next()
    const next = rows.next()
    controller.abort(new Error('enough'))
    await expect(next).rejects.toThrow('enough')
  })
})

describe('followEvents', () => {
  it('tells the end of a persistent script once, though it is told again after a reconnection', async () => {
    await using stub = await startStub((_request, response, number) =>
      number === 1 ? stream(response, eventText('exit', { exit_code: 3 })).end() : stream(response, eventText('exit', { exit_code: 3 }) + end).end(),
    )
    expect(await Array.fromAsync(client(stub.apiUrl).followEvents('web'))).toEqual([
      { type: 'exit', exitCode: 3 },
      { type: 'end', status: 'completed', exitCode: 0 },
    ])
  })
})

describe('runAndWait', () => {
  it('gives status, output and rows', async () => {
    await using stub = await startStub((request, response) => {
      if (request.method === 'POST') sendJson(response, 202, { request_id: 'r1', status: 'accepted', message: '' })
      else if (request.url.pathname.endsWith('/status')) sendJson(response, 200, { request_id: 'r1', status: 'error', exit_code: 3 })
      else
        stream(
          response,
          eventText('log', row('out'), '1') +
            eventText('log', { ...row('bad'), source: 'stderr', partial: true }, '2') +
            eventText('end', { status: 'error', exit_code: 3 }),
        ).end()
    })
    const result = await client(stub.apiUrl).runAndWait('x')
    expect(result).toMatchObject({ requestId: 'r1', exitCode: 3, stdout: 'out\n', stderr: 'bad' })
    expect(result.logs).toHaveLength(2)
  })
})

describe('execStream', () => {
  it('yields true bytes and the exit', async () => {
    await using stub = await startStub((_request, response) =>
      stream(
        response,
        eventText('log', { ...row('\ufffd'), base64: '/w==', partial: true }) + eventText('end', { exit_code: 9, duration_ms: 5, truncated: false }),
      ).end(),
    )
    expect(await Array.fromAsync(client(stub.apiUrl).execStream('web', 'x', { timeoutSeconds: 4 }))).toEqual([
      { type: 'output', source: 'stdout', bytes: Buffer.from([0xff]) },
      { type: 'exit', exitCode: 9, durationMs: 5, truncated: false },
    ])
    expect(stub.requests[0]?.url.search).toBe('?stream=true')
    expect(JSON.parse(stub.requests[0]?.body ?? '')).toEqual({ command: 'x', timeout_seconds: 4 })
  })

  it('says so when the connection breaks before the exit, and does not run it again', async () => {
    await using stub = await startStub((_request, response) => stream(response, eventText('log', row('a'))).end())
    await expect(Array.fromAsync(client(stub.apiUrl).execStream('web', 'x'))).rejects.toThrow(/how the command ended is not known/)
    expect(stub.requests).toHaveLength(1)
  })
})
