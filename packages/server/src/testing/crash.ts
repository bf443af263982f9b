import { FakeHost } from './fake-host.ts'
import { type SleepServer, startSleepServer } from './sleep-server.ts'

const nothing = () => undefined

/** A server that hangs for ever in the middle of something, as one that was killed there; and the next one over the same database and host. */
export class Crash implements AsyncDisposable {
  readonly host = new FakeHost()
  readonly #undo = new AsyncDisposableStack()
  readonly #reached = Promise.withResolvers<void>()
  readonly #gate = Promise.withResolvers<void>()
  #first: SleepServer | undefined

  constructor() {
    this.#undo.defer(() => this.host.close())
  }

  async first(): Promise<SleepServer> {
    this.#first = await startSleepServer({ host: this.host })
    this.#undo.use(this.#first)
    this.#undo.defer(() => this.#gate.resolve())
    return this.#first
  }

  /** Where it hangs. */
  readonly here = (): Promise<void> => {
    this.#reached.resolve()
    return this.#gate.promise
  }

  /** Settles once it hangs; then there is the next one. */
  async second(): Promise<SleepServer> {
    await this.#reached.promise
    return await this.next()
  }

  async next(): Promise<SleepServer> {
    if (this.#first === undefined) throw new Error('no first server')
    Object.assign(this.host, { beforeSleep: nothing, beforeWake: nothing, beforeHibernate: nothing, beforeFork: nothing, beforeRun: nothing })
    this.host.workspaces.beforeSave = () => undefined
    const second = await startSleepServer({ host: this.host, deps: this.#first.deps })
    this.#undo.use(second)
    return second
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#undo.disposeAsync()
  }
}
