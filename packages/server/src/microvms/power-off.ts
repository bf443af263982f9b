import type { Logger } from 'pino'
import type { JobRun } from '../jobs/job-run.ts'
import type { Timers } from '../workspaces/timers.ts'

export interface PowerOffDeps {
  readonly timers: Timers
  readonly logger: Logger
}

/** How long services may take to end; a little less than a stop is waited for. */
export const powerOffWaitMs = 25_000
/**
 * Again until it is heard: an init that has only begun listens to nobody yet. Where the program is missing, signals to the init itself: SIGRTMIN+4 for systemd (systemd(1)), SIGUSR2 for that of busybox, which systemd takes for something
 * harmless.
 */
const powerOffCommand = 'until poweroff; do kill -38 1; kill -USR2 1; sleep 0.5; done'

/** Has the init of a machine end its services and itself, and waits for that a while. Never rejects: what does not end is ended by the stop that follows. */
export async function powerOff({ timers, logger }: PowerOffDeps, run: JobRun, abort: AbortSignal): Promise<void> {
  if (!run.uses.hasBegun || run.isOver) return
  const end = new AbortController()
  const signal = AbortSignal.any([abort, end.signal])
  try {
    const waited = timers.wait(powerOffWaitMs, signal).catch(() => undefined)
    const request = { command: ['/bin/sh', '-c', powerOffCommand], timeoutMs: powerOffWaitMs }
    // It is ended by what it asks for, so its own end says nothing.
    run.uses
      .exec(request, () => undefined, signal)
      .catch((error: unknown) => {
        if (!signal.aborted) logger.warn({ err: error, requestId: run.requestId }, 'a microVM could not be asked to power off')
      })
    await Promise.race([run.scriptEnd, run.done, waited])
  } finally {
    end.abort(new Error('no longer waited for'))
  }
}
