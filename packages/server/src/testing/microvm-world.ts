import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { MicrovmActionAnswer, MicrovmAnswer, MicrovmStatus } from '@mags/protocol'
import { expect } from 'vitest'
import type { DatabaseConfig } from '../state/database.ts'
import { FakeHost, type FakeHostOptions } from './fake-host.ts'
import type { FakeSandbox } from './fake-sandbox.ts'
import { FakeTimers } from './fake-timers.ts'
import { startTestServer, type TestServer, type TestServerOptions } from './test-server.ts'

const poll = { timeout: 10_000, interval: 5 }
const nothing = () => undefined

/** A machine with virtual machines, and a database; both outlive their servers. */
export class MicrovmWorld implements AsyncDisposable {
  readonly host: FakeHost
  readonly timers = new FakeTimers()
  readonly #database: DatabaseConfig
  readonly #undo = new AsyncDisposableStack()
  readonly #directory = mkdtempSync(join(tmpdir(), 'mags-microvms-'))
  readonly #gate = Promise.withResolvers<void>()
  readonly #reached = Promise.withResolvers<void>()

  constructor(database: DatabaseConfig, options: FakeHostOptions = {}) {
    this.#database = database
    this.host = new FakeHost({ ...options, capabilities: { vm: { available: true, detail: 'fake' }, ...options.capabilities } })
    this.#undo.defer(() => rmSync(this.#directory, { recursive: true, force: true }))
    this.#undo.defer(() => this.host.close())
  }

  async start(options: TestServerOptions = {}): Promise<MicrovmClient> {
    const { host, timers } = this
    const folder = (name: string) => join(this.#directory, name)
    const deps = {
      ...{ database: this.#database, timers, logsDir: folder('logs'), filesDir: folder('files'), secretKeyFile: folder('server.key') },
      appsUrl: 'http://apps.localhost:4780',
      ssh: { host: 'ssh.example.org' },
      ...options.deps,
      // Unlike every wait of a microVM.
      limits: { syncIntervalMs: 12_345, ...options.deps?.limits },
    }
    const mags = this.#undo.use(await startTestServer({ host, ...options, deps }))
    this.#undo.defer(() => this.#gate.resolve())
    return new MicrovmClient(mags)
  }

  /** Where a server hangs for ever, as one that was killed there. */
  readonly here = (): Promise<void> => {
    this.#reached.resolve()
    return this.#gate.promise
  }

  /** Settles once one does. */
  get hangs(): Promise<void> {
    return this.#reached.promise
  }

  /** The next server, once one hangs in `here`. */
  async next(): Promise<MicrovmClient> {
    await this.hangs
    Object.assign(this.host, { beforeSleep: nothing, beforeWake: nothing, beforeRun: nothing })
    this.host.workspaces.beforeSave = nothing
    return await this.start()
  }

  /** Of the only machine there is. */
  sandbox(): FakeSandbox {
    const [sandbox, ...others] = this.host.sandboxes.values()
    if (sandbox === undefined || others.length > 0) throw new Error(`${others.length + Number(sandbox !== undefined)} sandboxes`)
    return sandbox
  }

  /** Ends a wait of this length, once there is one. */
  async endWait(ms: number): Promise<void> {
    await expect.poll(() => this.timers.pending.includes(ms), poll).toBe(true)
    this.timers.end(ms)
  }

  [Symbol.asyncDispose](): Promise<void> {
    this.#gate.resolve()
    return this.#undo.disposeAsync()
  }
}

/** The microVMs of a server as a client sees them; one is called `vm` unless it is said. */
export class MicrovmClient {
  readonly mags: TestServer

  constructor(mags: TestServer) {
    this.mags = mags
  }

  create(body: Record<string, unknown> = {}, headers: Record<string, string> = {}) {
    return this.mags.call('POST', '/microvms', { name: 'vm', image: 'debian-12', ...body }, headers)
  }

  /** One that runs. */
  async running(body: Record<string, unknown> = {}): Promise<MicrovmAnswer> {
    const answer = await this.create(body)
    if (answer.status !== 201) throw new Error(JSON.stringify(answer.body))
    const { name } = answer.body as unknown as MicrovmAnswer
    await this.becomes('running', name)
    return await this.get(name)
  }

  async get(name = 'vm'): Promise<MicrovmAnswer> {
    return (await this.mags.call('GET', `/microvms/${name}`)).body as unknown as MicrovmAnswer
  }

  async becomes(status: MicrovmStatus, name = 'vm'): Promise<void> {
    await expect.poll(async () => (await this.get(name)).status, poll).toBe(status)
  }

  async act(action: 'start' | 'stop' | 'restart', name = 'vm'): Promise<MicrovmActionAnswer> {
    const answer = await this.mags.call('POST', `/microvms/${name}/${action}`)
    if (answer.status !== 200) throw new Error(JSON.stringify(answer.body))
    return answer.body as unknown as MicrovmActionAnswer
  }

  delete(name = 'vm') {
    return this.mags.call('DELETE', `/microvms/${name}`)
  }

  /** What its newest job was told. */
  async rows(id = 'vm'): Promise<string[]> {
    const { request_id } = await this.get(id)
    return (await this.mags.rows(request_id ?? '', '?source=system')).logs.map(({ message }) => message)
  }
}
