import { mkdtempSync, rmSync } from 'node:fs'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { JobStatusAnswer, LogsAnswer } from '@mags/protocol'
import { pino } from 'pino'
import { createServer, type MagsServer, type ServerDeps } from '../create-server.ts'
import { FakeHost, type FakeHostOptions } from './fake-host.ts'

export interface TestServer extends AsyncDisposable {
  readonly server: MagsServer
  readonly host: FakeHost
  readonly deps: ServerDeps
  readonly token: string
  readonly directory: string
  /** A request with the token. */
  call(
    method: 'GET' | 'POST' | 'PATCH' | 'PUT' | 'DELETE',
    path: string,
    body?: unknown,
    headers?: Record<string, string>,
  ): Promise<{ status: number; body: Record<string, unknown>; headers: Record<string, unknown> }>
  submit(body: Record<string, unknown>): Promise<string>
  status(id: string): Promise<JobStatusAnswer>
  /** Follows the job's log to its end, then its status. */
  ended(id: string): Promise<JobStatusAnswer>
  rows(id: string, query?: string): Promise<LogsAnswer>
  /** Listens, and returns the address. */
  listen(): Promise<string>
}

export interface TestServerOptions extends FakeHostOptions {
  readonly deps?: Partial<ServerDeps>
  readonly host?: FakeHost
  /** Do not call `start`. */
  readonly held?: boolean
}

/** A whole server over a {@link FakeHost}, in a folder of its own. */
export async function startTestServer(options: TestServerOptions = {}): Promise<TestServer> {
  await using undo = new AsyncDisposableStack()
  const directory = mkdtempSync(join(tmpdir(), 'mags-server-'))
  undo.defer(() => rmSync(directory, { recursive: true, force: true }))
  const host = options.host ?? new FakeHost(options)
  if (options.host === undefined) undo.defer(() => host.close())
  const deps: ServerDeps = {
    database: { kind: 'sqlite', path: join(directory, 'mags.db') },
    host,
    logsDir: join(directory, 'logs'),
    filesDir: join(directory, 'files'),
    logger: pino({ level: 'silent' }),
    version: '0.0.0-test',
    publicUrl: 'http://127.0.0.1:1',
    ...options.deps,
    limits: { drainGraceMs: 0, stopGraceMs: 20, timeoutGraceMs: 20, ...options.deps?.limits },
  }
  const server = await createServer(deps)
  undo.defer(() => server.close())
  const token = await server.tokens.create('test')
  if (!options.held) await server.start()
  const kept = undo.move()
  const call: TestServer['call'] = async (method, path, body, headers = {}) => {
    const answer = await server.app.inject({
      method,
      url: `/api/v1${path}`,
      headers: { authorization: `Bearer ${token}`, ...(body === undefined ? {} : { 'content-type': 'application/json' }), ...headers },
      ...(body === undefined ? {} : { payload: JSON.stringify(body) }),
    })
    return {
      status: answer.statusCode,
      body: answer.body.startsWith('{') ? (JSON.parse(answer.body) as Record<string, unknown>) : { text: answer.body },
      headers: answer.headers,
    }
  }
  const get = async <T>(path: string) => (await call('GET', path)).body as unknown as T
  const status = (id: string) => get<JobStatusAnswer>(`/mags-jobs/${id}/status`)
  return {
    server,
    host,
    deps,
    token,
    directory,
    call,
    submit: async (body) => {
      const answer = await call('POST', '/mags-jobs', body)
      if (answer.status !== 202) throw new Error(`submit: ${answer.status} ${JSON.stringify(answer.body)}`)
      return String(answer.body.request_id)
    },
    status,
    ended: async (id) => {
      await call('GET', `/mags-jobs/${id}/logs?follow=true`)
      return await status(id)
    },
    rows: (id, query = '') => get<LogsAnswer>(`/mags-jobs/${id}/logs${query}`),
    listen: async () => {
      await server.app.listen({ host: '127.0.0.1', port: 0 })
      return `http://127.0.0.1:${(server.app.server.address() as AddressInfo).port}`
    },
    [Symbol.asyncDispose]: () => kept.disposeAsync(),
  }
}
