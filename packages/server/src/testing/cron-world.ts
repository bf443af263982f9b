import type { CronAnswer, CronRunAnswer } from '@mags/protocol'
import { type Database, type DatabaseConfig, openDatabase } from '../state/database.ts'
import { FakeHost } from './fake-host.ts'
import { startTestServer, type TestServer, type TestServerOptions } from './test-server.ts'

/** A world that outlives its servers: a database, a host, and a clock that a test sets. */
export class CronWorld implements AsyncDisposable {
  readonly database: DatabaseConfig
  readonly host = new FakeHost()
  now = Date.parse('2026-03-01T00:00:30Z')
  readonly #undo = new AsyncDisposableStack()

  constructor(database: DatabaseConfig) {
    this.database = database
    this.#undo.defer(() => this.host.close())
  }

  async start(options: TestServerOptions = {}): Promise<TestServer> {
    const { database, host } = this
    return this.#undo.use(await startTestServer({ host, ...options, deps: { database, clock: () => this.now, ...options.deps } }))
  }

  async sql(): Promise<Database> {
    return this.#undo.adopt(await openDatabase(this.database), (database) => database.destroy())
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.#undo.disposeAsync()
  }
}

/** The crons of a server as a client sees them; one is called `job` unless it is said. */
export class CronClient {
  readonly #mags: TestServer

  constructor(mags: TestServer) {
    this.#mags = mags
  }

  async add(body: Record<string, unknown> = {}): Promise<CronAnswer> {
    const answer = await this.#mags.call('POST', '/mags-cron', { name: 'job', schedule: '*/5 * * * *', script: 'echo hi', ...body })
    if (answer.status !== 201) throw new Error(JSON.stringify(answer.body))
    return answer.body as unknown as CronAnswer
  }

  async get(name = 'job'): Promise<CronAnswer> {
    return (await this.#mags.call('GET', `/mags-cron/${name}`)).body as unknown as CronAnswer
  }

  async run(name = 'job'): Promise<CronRunAnswer> {
    return (await this.#mags.call('POST', `/mags-cron/${name}/run`)).body as unknown as CronRunAnswer
  }

  /** Newest first. */
  async runs(name = 'job'): Promise<CronRunAnswer[]> {
    return ((await this.#mags.call('GET', `/mags-cron/${name}/runs?page_size=100`)).body as unknown as { runs: CronRunAnswer[] }).runs
  }

  /** The same as `HH:MM cause status`. */
  async brief(name = 'job'): Promise<string[]> {
    return (await this.runs(name)).map(({ scheduled_for, cause, status }) => `${scheduled_for.slice(11, 16)} ${cause} ${status}`)
  }

  /** Any change makes the scheduler look. */
  async look(name = 'job'): Promise<void> {
    await this.#mags.call('PATCH', `/mags-cron/${name}`, {})
  }

  /** Ends every script that runs. */
  finish(): void {
    for (const sandbox of this.#mags.host.sandboxes.values()) sandbox.end({ kind: 'exited', exitCode: 0 })
  }
}
