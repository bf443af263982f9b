import { once } from 'node:events'
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import type { LogRowWire } from '@mags/sdk'
import { FakeFiles } from './fake-files.ts'
import { FakeUploads } from './fake-uploads.ts'
import { answerWorkspaces } from './fake-workspaces.ts'
import { sendJson } from './send-json.ts'

/** How a submitted script behaves. */
export interface FakeScript {
  readonly rows?: readonly Partial<LogRowWire>[]
  /** Absent: runs until it is stopped. */
  readonly end?: { readonly status: string; readonly exit_code: number | null }
  /** The connection of the stream is cut after this many rows, once. */
  readonly cutAfter?: number
  /** Members of the status answer that differ from the usual. */
  readonly status?: Readonly<Record<string, unknown>>
}

interface FakeJob {
  readonly id: string
  readonly name: string
  readonly script: FakeScript
  ended: { status: string; exit_code: number | null } | undefined
  readonly followers: Set<ServerResponse>
  cut: boolean
}

export interface SeenRequest {
  readonly method: string
  readonly path: string
  readonly query: URLSearchParams
  readonly headers: IncomingMessage['headers']
  /** The body, where it is JSON. */
  readonly body: Readonly<Record<string, unknown>>
  readonly bytes: Buffer
}

/** A Mags server for tests of its clients, written from the contract: jobs whose scripts are only looked up, never run. */
export class FakeServer {
  readonly scripts: Readonly<Record<string, FakeScript>>
  readonly requests: SeenRequest[] = []
  readonly uploads = new FakeUploads()
  /** Of every job: it is one sandbox for all. */
  readonly files = new FakeFiles()
  readonly token = 'the-token'
  /** When set, it may answer instead; true: it has. */
  intercept: ((request: SeenRequest, response: ServerResponse) => boolean) | undefined
  readonly #jobs: FakeJob[] = []
  readonly #server: Server

  constructor(scripts: Readonly<Record<string, FakeScript>>) {
    this.scripts = scripts
    this.#server = createServer((incoming, response) => {
      this.#answer(incoming, response).catch(() => response.destroy())
    })
  }

  async listen(port = 0): Promise<this> {
    this.#server.listen(port, '127.0.0.1')
    await once(this.#server, 'listening')
    return this
  }

  get apiUrl(): string {
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}`
  }

  seen(method: string, path: RegExp): SeenRequest[] {
    return this.requests.filter((request) => request.method === method && path.test(request.path))
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#server.closeAllConnections()
    this.#server.close()
    await once(this.#server, 'close')
  }

  async #answer(incoming: IncomingMessage, response: ServerResponse): Promise<void> {
    const parts: Buffer[] = []
    for await (const part of incoming) parts.push(part as Buffer)
    const url = new URL(incoming.url ?? '/', 'http://fake')
    const bytes = Buffer.concat(parts)
    const path = url.pathname.replace(/^\/api\/v1/, '')
    const isJson = incoming.headers['content-type'] === 'application/json'
    const body = isJson ? (JSON.parse(bytes.toString('utf8')) as Record<string, unknown>) : {}
    const request: SeenRequest = { method: incoming.method ?? '', path, query: url.searchParams, headers: incoming.headers, body, bytes }
    this.requests.push(request)
    if (this.intercept?.(request, response)) return
    if (path === '/health') sendJson(response, 200, { status: 'ok', version: '0', isolation: 'container' })
    else if (request.headers.authorization !== `Bearer ${this.token}`) sendJson(response, 401, { error: 'The token is not known.', code: 'unauthorized' })
    else if (path === '/mags-jobs/pool-status') sendJson(response, 200, poolStatus)
    else if (path === '/mags-jobs') this.#jobsRoute(request, response)
    else if (path.startsWith('/mags-files')) this.uploads.answer(request, response)
    else if (path.startsWith('/mags-workspaces')) answerWorkspaces(request, response)
    else if (/^\/mags-jobs\/[^/]+\/files/.test(path)) this.files.answer(request, response)
    else this.#jobRoute(request, response)
  }

  #jobsRoute(request: SeenRequest, response: ServerResponse): void {
    if (request.method === 'POST') {
      const id = `00000000-0000-4000-8000-${String(this.#jobs.length).padStart(12, '0')}`
      const script = this.scripts[String(request.body.script)] ?? { end: { status: 'completed', exit_code: 0 } }
      const name = typeof request.body.name === 'string' ? request.body.name : 'mags-job-1'
      this.#jobs.push({ id, name, script, ended: script.end, followers: new Set(), cut: false })
      sendJson(response, 202, { request_id: id, status: 'accepted', message: 'Mags job submitted successfully' })
    } else {
      const jobs = this.#jobs.map((job) => ({ ...statusOf(job), job_id: job.id })).reverse()
      sendJson(response, 200, { jobs, total: jobs.length, page: 1, page_size: 20 })
    }
  }

  #jobRoute(request: SeenRequest, response: ServerResponse): void {
    const [, , id = '', verb] = request.path.split('/')
    const job = this.#jobs.findLast((each) => each.id === decodeURIComponent(id) || each.name === decodeURIComponent(id))
    if (job === undefined) sendJson(response, 404, { error: `no job '${id}'`, code: 'not_found' })
    else if (verb === 'status') sendJson(response, 200, statusOf(job))
    else if (verb === 'logs' && request.query.get('follow') === 'true') follow(job, request, response)
    else if (verb === 'logs') {
      const rows = job.script.rows ?? []
      sendJson(response, 200, { logs: rows.slice(Number(request.query.get('after') ?? 0)).map(completeRow), next: String(rows.length) })
    } else if (verb === 'stop') {
      job.ended ??= { status: 'stopped', exit_code: null }
      sendJson(response, 200, { success: true, message: 'Job stopped' })
      for (const follower of job.followers) follower.end(eventText('end', job.ended))
    } else if (verb === 'sync')
      sendJson(response, 200, { success: true, workspace_id: job.name, version: 5, bytes_uploaded: job.script.rows === undefined ? 0 : 1_230_000 })
    else sendJson(response, 404, { error: 'no such route', code: 'not_found' })
  }
}

function follow(job: FakeJob, request: SeenRequest, response: ServerResponse): void {
  response.writeHead(200, { 'content-type': 'text/event-stream' })
  response.write(': here\n\n')
  const rows = job.script.rows ?? []
  for (let index = Number(request.query.get('after') ?? 0); index < rows.length; index += 1) {
    if (index === job.script.cutAfter && !job.cut) {
      job.cut = true
      response.write('id: 99\nevent: log\ndata: {"mess')
      setImmediate(() => response.destroy())
      return
    }
    response.write(eventText('log', completeRow(rows[index] ?? {}), String(index + 1)))
  }
  if (job.ended !== undefined) response.end(eventText('end', job.ended))
  else {
    job.followers.add(response)
    response.on('close', () => job.followers.delete(response))
  }
}

function completeRow(row: Partial<LogRowWire>): LogRowWire {
  return { timestamp: '2026-01-01T00:00:00.000Z', level: 'info', source: 'stdout', message: '', ...row }
}

function statusOf(job: FakeJob) {
  return {
    request_id: job.id,
    name: job.name,
    vm_id: '3f2a90c1d2e4',
    persistent: false,
    url: null,
    sleeping: false,
    image: 'debian-12',
    isolation: 'container',
    attach_duration_ms: 2,
    start_duration_ms: 6.04,
    script_duration_ms: 12,
    created_at: '2026-01-01T00:00:00.000Z',
    started_at: '2026-01-01T00:00:00.006Z',
    completed_at: job.ended === undefined ? null : '2026-01-01T00:00:00.018Z',
    error: null,
    status: job.ended?.status ?? 'running',
    exit_code: job.ended?.exit_code ?? null,
    ...job.script.status,
  }
}

const poolStatus = {
  idle_vms: 3,
  busy_vms: 1,
  total_vms: 4,
  min_pool_size: 3,
  max_pool_size: 0,
  sleeping_vms: 0,
  isolation: 'container',
  hit_rate: 0.5,
  last_failure: null,
}

export { sendJson }

/** One server-sent event as text. */
export function eventText(event: string, data: unknown, id?: string): string {
  return `${id === undefined ? '' : `id: ${id}\n`}event: ${event}\ndata: ${JSON.stringify(data)}\n\n`
}
