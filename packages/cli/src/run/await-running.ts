import { type Mags, type StatusWire, wait } from '@mags/sdk'
import type { Cli } from '../cli.ts'
import { CliError } from '../exit/cli-error.ts'
import { sayWhyItWaits } from './waiting-note.ts'

/**
 * Waits until a persistent job's script has been handed to its sandbox. Interrupted before that, it stops the job. Throws CliError when
 * the job ends without having run.
 */
export async function awaitRunning(cli: Cli, mags: Mags, id: string): Promise<StatusWire> {
  using _waiting = sayWhyItWaits(cli, mags, id)
  try {
    for (let pauseMs = 10; ; pauseMs = Math.min(pauseMs * 1.5, 500)) {
      const status = await mags.status(id, { signal: cli.interrupts.requested })
      if (status.status === 'error' || status.status === 'stopped') {
        throw new CliError(status.error ?? `the job ended as '${status.status}' before it was seen running`, { code: 'job_failed' })
      }
      // `running` begins when a sandbox is taken; the script is in it once attaching has a duration.
      if (status.attach_duration_ms !== null || status.status === 'completed' || status.status === 'sleeping') return status
      await wait(pauseMs, cli.interrupts.requested)
    }
  } catch (error) {
    if (!cli.interrupts.requested.aborted) throw error
    await cli.output.note(`stopping job ${id} (once more leaves at once)`)
    await mags.stop(id)
    throw cli.interrupts.requested.reason
  }
}
