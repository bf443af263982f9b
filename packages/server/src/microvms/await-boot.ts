import type { Logger } from 'pino'
import type { JobRun } from '../jobs/job-run.ts'

/** The longest that is waited for services; one whose services take longer counts as up all the same. */
export const bootWaitMs = 60_000

/**
 * Ends once the services of the image have been started: systemctl(1) says so, whether all of them work or not. Its socket is there only a while after the first process. Where there is no systemd nobody can tell, and the machine is
 * up at once.
 */
const bootedCommand = `command -v systemctl > /dev/null || exit 0
until [ -S /run/systemd/private ]; do sleep 0.1; done
systemctl is-system-running --wait > /dev/null 2>&1`

/** Settles once a machine that has begun to boot is up, is over, or has had enough time. Never rejects. */
export async function awaitBoot({ logger }: { readonly logger: Logger }, run: JobRun, abort: AbortSignal): Promise<void> {
  await Promise.race([run.uses.begun, run.done])
  if (!run.uses.hasBegun || run.isOver) return
  const end = new AbortController()
  const signal = AbortSignal.any([abort, end.signal])
  const booted = run.uses
    .exec({ command: ['/bin/sh', '-c', bootedCommand], timeoutMs: bootWaitMs }, () => undefined, signal)
    .catch((error: unknown) => {
      if (!signal.aborted) logger.warn({ err: error, requestId: run.requestId }, 'whether the services of a microVM are up could not be found out')
    })
  await Promise.race([booted, run.scriptEnd, run.done])
  end.abort(new Error('no longer waited for'))
}
