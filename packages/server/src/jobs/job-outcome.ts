import { errorCatalogue, MagsError, type ScriptExit } from '@mags/protocol'
import type { Job } from './job.ts'

/** Why we end a job before its script ends by itself. */
export type Ending = { readonly kind: 'stop' } | { readonly kind: 'timeout'; readonly words: string } | { readonly kind: 'shutdown'; readonly reason: string }

export interface Verdict {
  readonly status: 'completed' | 'error' | 'stopped'
  readonly exitCode: number | null
  readonly error: string | null
  /** Row for the job's system log. */
  readonly row?: string
  /** Another try may do better. */
  readonly retryable?: true
}

/** Exit code of a script that ran out of time, as timeout(1) has it. */
export const timeoutExitCode = 124

/** What becomes of a job whose script ended, or could not be ended otherwise. */
export function judge(exit: ScriptExit, ending: Ending | undefined): Verdict {
  if (ending?.kind === 'stop') return { status: 'stopped', exitCode: exit.kind === 'exited' || exit.kind === 'signalled' ? exit.exitCode : null, error: null }
  if (ending?.kind === 'timeout') return { status: 'error', exitCode: timeoutExitCode, error: ending.words, retryable: true }
  if (ending?.kind === 'shutdown') return { status: 'error', exitCode: null, error: ending.reason, row: ending.reason }
  if (exit.kind === 'exited' && exit.exitCode === 0)
    return { status: 'completed', exitCode: 0, error: null, ...(exit.reason === undefined ? {} : { row: exit.reason }) }
  const error = exit.reason ?? wordsFor(exit)
  const worthARow = exit.reason !== undefined || exit.kind !== 'exited'
  return { status: 'error', exitCode: exit.kind === 'unknown' ? null : exit.exitCode, error, ...(worthARow ? { row: error } : {}), retryable: true }
}

/** What becomes of a job that could not go on. */
export const failed = (words: string, { retryable = false } = {}): Verdict => ({
  ...{ status: 'error', exitCode: null, error: words, row: words },
  ...(retryable ? { retryable } : {}),
})

/** Whether the same may work later: what nobody has an explanation for, too. */
export const mayWorkAgain = (error: unknown): boolean => !(error instanceof MagsError) || errorCatalogue[error.code].retryable

/** The same when its workspace could not be saved: never anything but an error, so that nothing is lost in silence. */
export function withUnsaved(verdict: Verdict, unsaved: string): Verdict {
  return { ...verdict, status: 'error', error: verdict.error === null ? unsaved : `${verdict.error}; ${unsaved}` }
}

export const timeoutWords = (seconds: number) => `timed out after ${seconds} s`

/** How long a script may run, and what is said when that is over; undefined: as long as it likes. `mostSeconds`: what the operator allows (0: anything), of a job that is not to stay. */
export function deadlineOf(
  job: Pick<Job, 'persistent' | 'timeoutSeconds'>,
  mostSeconds: number,
): { readonly seconds: number; readonly words: string } | undefined {
  const { timeoutSeconds } = job
  if (mostSeconds > 0 && (timeoutSeconds === null ? !job.persistent : timeoutSeconds > mostSeconds))
    return { seconds: mostSeconds, words: `${timeoutWords(mostSeconds)}, the longest that a job may run on this server` }
  return timeoutSeconds === null ? undefined : { seconds: timeoutSeconds, words: timeoutWords(timeoutSeconds) }
}

function wordsFor(exit: ScriptExit): string {
  switch (exit.kind) {
    case 'exited':
      return `the script ended with exit code ${exit.exitCode}`
    case 'signalled':
      return `the script was ended by signal ${exit.exitCode - 128}`
    case 'not-started':
      return 'the script could not be started'
    case 'sandbox-lost':
      return 'the sandbox was lost'
    case 'unknown':
      return 'how the script ended is not known'
  }
}

/** For what comes too late to begin. */
export const jobIsEnding = () => new MagsError('job_not_running', 'the job is ending')
