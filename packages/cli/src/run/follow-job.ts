import { type JobEvent, type Mags, MagsConnectionError } from '@mags/sdk'
import type { Cli } from '../cli.ts'
import { reconnect } from '../server/reconnect.ts'
import { BrokenPipe } from '../terminal/output.ts'
import { exitCodeOf } from './exit-code-of.ts'
import { sayWhyItWaits } from './waiting-note.ts'

type Row = Extract<JobEvent, { type: 'log' }>['row']

const stopPatienceMs = 10_000

/**
 * Shows a job from its first row to its end and returns its exit code. It is stopped when the user interrupts (then throws Interrupted)
 * and when nobody reads its output any more (then throws BrokenPipe): a script in a sandbox ends as the same one in a pipe would.
 */
export async function followJob(cli: Cli, mags: Mags, id: string, onRow: (row: Row) => Promise<void>): Promise<number> {
  const { requested } = cli.interrupts
  const leave = new AbortController()
  const onInterrupt = () => void stopForUser(cli, mags, id, leave)
  requested.addEventListener('abort', onInterrupt, { once: true })
  if (requested.aborted) onInterrupt()
  let said: string | undefined
  using waiting = sayWhyItWaits(cli, mags, id)
  try {
    for await (const event of mags.followEvents(id, { signal: leave.signal, onDisconnect: reconnect(cli) })) {
      waiting[Symbol.dispose]()
      if (event.type === 'log') {
        if (event.row.source === 'system') said = event.row.message
        await onRow(event.row)
      }
      if (event.type !== 'end') continue
      if (requested.aborted) {
        await cli.output.note(event.status === 'stopped' ? 'the job is stopped' : `the job had ended as '${event.status}'`)
        throw requested.reason
      }
      return await exitCodeOf(cli, mags, id, event, said)
    }
    throw new Error('the stream of the job ended without its end')
  } catch (error) {
    if (error instanceof BrokenPipe) await mags.stop(id, { signal: AbortSignal.timeout(stopPatienceMs) }).catch(() => undefined)
    if (error instanceof MagsConnectionError)
      await cli.output.note(`how job ${id} stands is not known: 'mags status ${id}' shows it when the server answers again`)
    throw error
  } finally {
    requested.removeEventListener('abort', onInterrupt)
  }
}

async function stopForUser(cli: Cli, mags: Mags, id: string, leave: AbortController): Promise<void> {
  await cli.output.note(`stopping job ${id} (once more leaves at once)`)
  const timer = setTimeout(() => {
    void cli.output.note(`the job has not ended after ${stopPatienceMs / 1000} s; 'mags status ${id}' shows how it goes on`)
    leave.abort(cli.interrupts.requested.reason)
  }, stopPatienceMs)
  // The end of the job ends the process; the timer must not keep it.
  timer.unref()
  try {
    await mags.stop(id)
  } catch (error) {
    await cli.output.note(`the job could not be stopped: ${error instanceof Error ? error.message : String(error)}`)
    leave.abort(cli.interrupts.requested.reason)
  }
}
