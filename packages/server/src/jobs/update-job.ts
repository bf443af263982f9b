import { isFinal, MagsError, type UpdateJobRequest } from '@mags/protocol'
import type { LiveJobs } from '../access/live-jobs.ts'
import type { Dispatcher } from './dispatcher.ts'
import type { Job } from './job.ts'
import type { JobStore } from './store.ts'

export interface UpdateDeps {
  readonly store: JobStore
  readonly live: LiveJobs
  readonly dispatcher: Dispatcher
}

/** Changes what may be changed of a job that is not over; egress rules are in force once this settles. Rejects with MagsError 'bad_request', 'job_not_running'. */
export async function updateJob(deps: UpdateDeps, job: Job, request: UpdateJobRequest): Promise<void> {
  const { startup_command: startupCommand, no_sleep: noSleep, port, egress, visibility } = request
  if (noSleep && !job.persistent) throw new MagsError('bad_request', 'no_sleep: needs a persistent job')
  if (noSleep === false && job.kind === 'microvm')
    throw new MagsError('bad_request', "no_sleep: a microVM does not sleep; 'mags vm stop' ends it, and its disk stays")
  if (visibility !== undefined && !job.persistent) throw new MagsError('bad_request', 'visibility: needs a persistent job')
  const run = deps.dispatcher.find(job.requestId)
  const change = {
    ...(startupCommand === undefined ? {} : { startupCommand }),
    ...(noSleep === undefined ? {} : { noSleep }),
    ...(port === undefined ? {} : { port }),
    ...(egress === undefined ? {} : { egress }),
  }
  // Before it is stored: rules that cannot be kept are refused, and what is stored is in force.
  if (egress !== undefined) await run?.setEgress(egress ?? {})
  if (isFinal(job.status) || !(await deps.store.update(job.requestId, change)))
    throw new MagsError('job_not_running', `job ${job.name} is over and cannot be changed`)
  if (noSleep !== undefined && run !== undefined) run.uses.noSleep = noSleep
  if (port !== undefined) deps.live.setPort(job.requestId, port)
  if (visibility !== undefined) await deps.live.setVisibility(job, visibility)
}
