import type { JobLog } from '../logs/job-log.ts'

const progressEveryMs = 1000

/** Rows for what the host does before a script can start, at most one a second. */
export function tellProgress(log: JobLog): (words: string) => void {
  let lastAt = Number.NEGATIVE_INFINITY
  return (words) => {
    const now = performance.now()
    if (now - lastAt < progressEveryMs) return
    lastAt = now
    void log.system(words, 'info')
  }
}
