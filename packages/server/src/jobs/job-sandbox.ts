import type { EgressPolicy, RunningSandbox, SandboxSpec } from '@mags/protocol'
import type { JobLog } from '../logs/job-log.ts'
import { wordsOf } from '../workspaces/save-left.ts'
import type { JobHead } from './job.ts'
import { JobEgress } from './job-egress.ts'
import { JobEgressPolicy } from './job-egress-policy.ts'
import type { JobRunDeps } from './job-run-deps.ts'
import type { JobTrouble } from './job-trouble.ts'
import { settlesWithin } from './settles-within.ts'

/** How long the next try waits for the sandbox of the one before. */
const endMs = 5000

/**
 * The sandbox of a job, with what it may reach and what it sent.
 *
 *     none ──begin, adopt──► has one ◄──replace──► none or another one ──destroy──► gone
 */
export class JobSandbox {
  readonly egress: JobEgress
  readonly #policy: JobEgressPolicy
  readonly #trouble: JobTrouble
  readonly #warn: (error: unknown, words: string) => void
  readonly #onFault: (words: string) => void
  #running: RunningSandbox | undefined

  /** `onFault` hears why it cannot go on. */
  constructor(
    deps: Pick<JobRunDeps, 'store' | 'logger' | 'saving'>,
    { requestId, egressBytes }: JobHead,
    { log, trouble, onFault }: { readonly log: JobLog; readonly trouble: JobTrouble; readonly onFault: (words: string) => void },
  ) {
    const { store, logger, saving } = deps
    this.#trouble = trouble
    const storeBytes = (bytes: number) => store.setEgressBytes(requestId, bytes)
    this.egress = new JobEgress({ storedBytes: egressBytes, log, logger, timers: saving.timers, storeBytes })
    this.#policy = new JobEgressPolicy(() => this.#running)
    this.#warn = (error, words) => logger.warn({ err: error, requestId }, words)
    this.#onFault = onFault
  }

  get running(): RunningSandbox | undefined {
    return this.#running
  }

  /** What is asked for, with what the job may reach by now. */
  applyPolicy(spec: SandboxSpec): SandboxSpec {
    return this.#policy.applyTo(spec)
  }

  /** What it may reach from now on; before there is one, from its start on. Rejects as `RunningSandbox.setEgress`. */
  setEgress(policy: EgressPolicy): Promise<void> {
    return this.#policy.set(policy)
  }

  /** Its first one. */
  begin(running: RunningSandbox): void {
    this.#running = running
    this.#trouble.watch(running)
  }

  /** The first one counts. `isOver`: the job ended while it was being made. */
  watch({ hasRules, isOver }: { readonly hasRules: boolean; readonly isOver: boolean }): void {
    if (this.#running === undefined) return
    if (!isOver) this.egress.watch(this.#running, { hasRules })
    this.#catchUp(this.#running)
  }

  /** One of a former process, or none. */
  adopt(running: RunningSandbox | undefined): void {
    this.#running = running
    if (running === undefined) return
    this.#trouble.watch(running)
    this.egress.watch(running, { isAdopted: true })
  }

  /** A wake made another one, or it was given back. */
  replace(running: RunningSandbox | undefined): void {
    this.#running = running
    if (running === undefined) return
    this.#trouble.watch(running)
    this.#catchUp(running)
    this.egress.watch(running)
  }

  /** Never rejects. */
  async destroy(): Promise<void> {
    await this.#running?.destroy().catch((error: unknown) => this.#warn(error, 'a sandbox could not be destroyed'))
  }

  /** The same with what it sent counted, as far as that does not take long. */
  async end(destroyed: Promise<void>): Promise<void> {
    await settlesWithin(Promise.all([destroyed, this.#running?.egressTotal]), endMs)
  }

  /** A policy that came while this sandbox was being made. */
  #catchUp(running: RunningSandbox): void {
    this.#policy.catchUp(running).catch((error: unknown) => this.#onFault(`egress: ${wordsOf(error)}`))
  }
}
