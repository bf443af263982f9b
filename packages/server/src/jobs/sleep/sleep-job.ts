import { isFinal, MagsError, type SleepAnswer, type WakeAnswer } from '@mags/protocol'
import type { Job } from '../job.ts'
import type { JobRun } from '../job-run.ts'
import { settlesWithin } from '../settles-within.ts'

/** The gateway holds a job for a second after a request, so this is no reason to refuse. */
const lingerMs = 2000

/** The run of a job that has a sandbox which stays, or sleeps. Throws MagsError 'bad_request' or 'job_not_running' that says which of the two fails, or both; `what` cannot be had then. */
export function requireLasting(job: Job, run: JobRun | undefined, what: string): JobRun {
  const over = isFinal(job.status) || run === undefined
  const why = over ? `is over (status: ${job.status})` : 'has not started yet'
  if (!job.persistent) {
    const also = over ? `, and it ${why}` : ''
    throw new MagsError('bad_request', `job ${job.name} is not persistent${also}: ${what} needs a job submitted with persistent`)
  }
  if (over) throw new MagsError('job_not_running', `job ${job.name} ${why}: ${what} needs one that runs or sleeps`)
  return run
}

/** Puts a job to sleep now. Rejects with MagsError that says why it cannot sleep. */
export async function sleepJob(job: Job, run: JobRun | undefined, release: boolean): Promise<SleepAnswer> {
  const lasting = requireLasting(job, run, 'sleep')
  if (!lasting.uses.hasBegun) throw new MagsError('job_not_running', `job ${job.name} is still starting; try again once its status is running`)
  const slept = lasting.sleep.stage !== undefined
  if (!slept) {
    if (lasting.uses.noSleep)
      throw new MagsError('bad_request', `job ${job.name} is never put to sleep (no_sleep); 'mags set ${job.name} --sleep' changes that`)
    const isUnused = await settlesWithin(lasting.uses.unused(), lingerMs)
    if (!isUnused || !(await lasting.sleep.fallAsleep('on request'))) throw inUse(job, lasting)
  }
  const stage = release ? await lasting.sleep.deepen() : lasting.sleep.stage
  if (stage === undefined) throw inUse(job, lasting)
  const message = slept ? 'Job sleeps already' : 'Job sleeps'
  const kept = release && stage === 'frozen' ? '; its memory is kept, because it has no workspace to wake from' : ''
  return { success: true, message: `${message}${kept}`, status: 'sleeping', sleep_stage: stage }
}

/** Wakes a job. Rejects as `JobRun.use`. */
export async function wakeJob(job: Job, run: JobRun | undefined, abort: AbortSignal): Promise<WakeAnswer> {
  const lasting = requireLasting(job, run, 'wake')
  using use = await lasting.uses.use('request', abort)
  return { success: true, message: use.wakeMs === null ? 'Job is awake' : 'Job woken', status: 'running', wake_duration_ms: use.wakeMs }
}

function inUse(job: Job, run: JobRun): MagsError {
  const count = run.uses.open
  const what = count === 1 ? 'a connection or command is' : `${count} connections and commands are`
  return new MagsError(
    'job_not_running',
    count === 0 ? `job ${job.name} is in use; try again` : `job ${job.name} is in use: ${what} open; close them, and try again`,
  )
}
