import type { RunningSandbox } from '@mags/protocol'

/** What a job is used for; the reason of a wake. */
export type UseReason = 'http' | 'ssh' | 'exec' | 'files' | 'request'

/** The sandbox of a job, awake as long as this is not disposed of. */
export interface SandboxUse extends Disposable {
  readonly running: RunningSandbox
  /** How long waking it took, when it slept. */
  readonly wakeMs: number | null
  /** When its processes were started or let go on last: ms since 1970. */
  readonly wokenAt: number
}

/** Settles as the promise, or rejects with the reason of `abort` before that. */
export async function unlessAborted<T>(promise: Promise<T>, abort: AbortSignal | undefined): Promise<T> {
  if (abort === undefined) return await promise
  abort.throwIfAborted()
  const aborted = Promise.withResolvers<never>()
  const onAbort = () => aborted.reject(abort.reason)
  abort.addEventListener('abort', onAbort, { once: true })
  try {
    return await Promise.race([promise, aborted.promise])
  } finally {
    abort.removeEventListener('abort', onAbort)
  }
}
