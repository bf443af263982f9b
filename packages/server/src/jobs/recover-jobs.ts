import type { HostApi, RunningSandbox } from '@mags/protocol'
import type { Logger } from 'pino'
import type { LogStore } from '../logs/log-store.ts'
import { timestamp } from '../state/timestamp.ts'
import type { WorkspaceStore } from '../workspaces/store.ts'
import type { Dispatcher } from './dispatcher.ts'
import type { JobHead } from './job.ts'
import { startupOutput } from './sleep/startup-output.ts'
import type { JobStore } from './store.ts'

export interface RecoverDeps {
  readonly store: JobStore
  readonly host: HostApi
  readonly logs: LogStore
  readonly workspaces: WorkspaceStore
  readonly dispatcher: Dispatcher
  readonly clock: () => number
  readonly logger: Logger
}

export const stoppedWhileRunning = 'the server stopped while this job ran'
const goneAfterRestart = 'the sandbox was gone after a restart of the server'

/** Picks up what a former process left: persistent jobs go on or sleep on, other running ones end as `error` unless they have tries left, pending ones wait again, copies that were being made never were. Resolves with the storage ids of the workspaces of those that ended. */
export async function recoverJobs(deps: RecoverDeps): Promise<string[]> {
  const ended: string[] = []
  const counts = { adopted: 0, failed: 0, pending: 0 }
  for (const job of await deps.store.listUnfinished()) {
    const { requestId, status } = job
    // Submitted since this process began: it waits already.
    if (deps.dispatcher.find(requestId)) continue
    if (job.forkedFrom !== null && job.forkedWithMemory === null) {
      // Nobody was told of it. `settle` frees its sandbox.
      await deps.store.discardCopy(requestId, timestamp(deps.clock()))
      await deps.logs.remove(requestId)
    } else if (status === 'pending') {
      // The former process may have begun to work with the fence it has.
      if (job.workspaceStorageId !== null) await deps.workspaces.renewFence(job.workspaceStorageId, requestId)
      const waitedMs = Math.max(0, deps.clock() - Date.parse(job.notBefore ?? job.createdAt))
      deps.dispatcher.requeue(job, performance.now() - waitedMs)
      counts.pending++
    } else if (await recoverRunning(deps, job)) {
      counts.adopted++
    } else if (deps.dispatcher.find(requestId)) {
      counts.pending++
    } else {
      counts.failed++
      if (job.workspaceStorageId !== null) ended.push(job.workspaceStorageId)
    }
  }
  await deps.host.settle()
  if (counts.adopted + counts.failed + counts.pending > 0) deps.logger.info(counts, 'jobs of the former process were recovered')
  return ended
}

/** Whether the job lives on. */
async function recoverRunning(deps: RecoverDeps, job: JobHead): Promise<boolean> {
  const run = deps.dispatcher.track(job)
  const goOn = (running: RunningSandbox | undefined, as: JobHead) => {
    run.adopt(as, running).catch((error: unknown) => deps.logger.error({ err: error, requestId: job.requestId }, 'an adopted job could not be followed'))
    return true
  }
  const warn = (error: unknown, words: string) => deps.logger.warn({ err: error, requestId: job.requestId }, words)
  if (job.sleepStage === 'released') {
    // What a wake may have made that did not come to its end is freed by `settle`, and made anew.
    await run.log.open().catch(() => undefined)
    return goOn(undefined, job)
  }
  if (!job.persistent || job.vmId === null) {
    await run.fail(job.persistent ? goneAfterRestart : stoppedWhileRunning, { retryable: job.exitCode === null })
    return false
  }
  try {
    await run.log.open()
    const asleep = job.sleepStage !== null
    // What a startup command wrote is in the log as rows, so nothing is known of its streams.
    const [safe, sink] = job.restarted ? [{ stdout: 0, stderr: 0 }, startupOutput(run.log)] : [run.log.safeOffsets(), run.log.sink]
    const running = await deps.host.adopt(job.vmId, { ...safe, ...(asleep ? { asleep } : {}) }, sink)
    // The former process may have ended between a wake and the note of it.
    if (asleep) await running?.sleep().catch((error: unknown) => warn(error, 'a sleeping sandbox could not be put to sleep again'))
    if (running) return goOn(running, job)
  } catch (error) {
    warn(error, 'a sandbox could not be adopted')
  }
  if (job.sleepStage !== null && job.workspaceStorageId !== null) {
    await deps.store.setSleepStage(job.requestId, 'released').catch((error: unknown) => warn(error, 'how deep a job sleeps could not be stored'))
    await run.log.system('the sleeping sandbox was gone after a restart of the server; the next wake makes a new one from the workspace', 'error')
    return goOn(undefined, { ...job, sleepStage: 'released', vmId: null })
  }
  await run.fail(goneAfterRestart, { retryable: job.exitCode === null && !job.restarted })
  return false
}
