import { Mags } from '@mags/sdk'
import { isFinal, untilStatus } from './jobs.ts'

type Wire = Record<string, unknown>

export interface Ended {
  readonly id: string
  readonly status: string
  readonly exitCode: number | null
  readonly error: string | null
  readonly stdout: string
  readonly version: number | null
}

/** An answer that is no success. */
export class ApiFailure extends Error {
  readonly status: number
  readonly body: { readonly error: string; readonly code: string }
  constructor(what: string, status: number, text: string) {
    super(`${what}: ${status} ${text}`)
    this.status = status
    this.body = JSON.parse(text) as ApiFailure['body']
  }
}

/** Jobs with workspaces through the API, in its own words. */
export class WorkspaceClient {
  readonly #daemon: { readonly url: string; readonly token: string }
  readonly mags: Mags

  constructor(daemon: { readonly url: string; readonly token: string }) {
    this.#daemon = daemon
    this.mags = new Mags({ apiUrl: daemon.url, apiToken: daemon.token })
  }

  async submit(job: Wire): Promise<string> {
    return (await this.call<{ request_id: string }>('POST', 'mags-jobs', job)).request_id
  }

  /** A job from submit to end. */
  async run(script: string, job: Wire = {}): Promise<Ended> {
    return await this.ended(await this.submit({ script, ...job }))
  }

  async ended(id: string): Promise<Ended> {
    const status = (await untilStatus(this.mags, id, isFinal)) as unknown as Wire
    const { logs } = await this.mags.logs(id, { source: 'stdout', limit: 10_000 })
    return {
      id,
      status: String(status.status),
      exitCode: status.exit_code as number | null,
      error: status.error as string | null,
      stdout: logs.map(({ message, partial }) => (partial ? message : `${message}\n`)).join(''),
      version: (status.workspace_version ?? null) as number | null,
    }
  }

  /** A sandbox that stays; its id, once its script has ended. */
  async open(job: Wire): Promise<string> {
    const id = await this.submit({ script: 'exit 0', persistent: true, ...job })
    const { error } = await untilStatus(this.mags, id, (status) => status.exit_code !== null || status.error !== null)
    if (error !== null) throw new Error(`the sandbox did not start: ${error}`)
    return id
  }

  async exec(id: string, command: string): Promise<string> {
    const result = await this.call<{ exit_code: number; stdout: string; stderr: string }>('POST', `mags-jobs/${id}/exec`, { command, timeout_seconds: 600 })
    if (result.exit_code !== 0) throw new Error(`${command.slice(0, 60)}: exit ${result.exit_code}: ${result.stderr}`)
    return result.stdout
  }

  /** Milliseconds, bytes and version of one save on request. */
  async sync(id: string): Promise<{ ms: number; bytes: number; version: number }> {
    const begin = performance.now()
    const { bytes_uploaded: bytes, version } = await this.call<{ bytes_uploaded: number; version: number }>('POST', `mags-jobs/${id}/sync`, {})
    return { ms: performance.now() - begin, bytes, version }
  }

  async stop(id: string) {
    await this.call('POST', `mags-jobs/${id}/stop`, {})
    await untilStatus(this.mags, id, isFinal)
  }

  /** Milliseconds of a fork. */
  async fork(from: string, to: string): Promise<number> {
    const begin = performance.now()
    await this.call('POST', `mags-workspaces/${from}/fork`, { workspace_id: to })
    return performance.now() - begin
  }

  async call<T>(method: string, path: string, body?: unknown): Promise<T> {
    const response = await fetch(`${this.#daemon.url}/api/v1/${path}`, {
      method,
      headers: { authorization: `Bearer ${this.#daemon.token}`, ...(body === undefined ? {} : { 'content-type': 'application/json' }) },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    })
    const text = await response.text()
    if (!response.ok) throw new ApiFailure(`${method} ${path}`, response.status, text)
    return JSON.parse(text) as T
  }
}
