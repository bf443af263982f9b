import type { ImageTaskWire, Mags } from '@mags/sdk'
import type { Cli } from '../cli.ts'
import { CliError } from '../exit/cli-error.ts'
import { reconnect } from '../server/reconnect.ts'

const cancelPatienceMs = 10_000

/** Shows how far a task is, on standard error, until it is over; returns it. It is cancelled when the user interrupts (then throws Interrupted). Throws CliError with why it failed. */
export async function followTask(cli: Cli, mags: Mags, id: string): Promise<ImageTaskWire> {
  const { requested } = cli.interrupts
  const leave = new AbortController()
  const onInterrupt = () => void cancelForUser(cli, mags, id, leave)
  requested.addEventListener('abort', onInterrupt, { once: true })
  if (requested.aborted) onInterrupt()
  try {
    for await (const event of mags.images.followTask(id, { signal: leave.signal, onDisconnect: reconnect(cli) })) {
      if (event.type === 'end') break
      if (event.row.source === 'system') await cli.output.note(event.row.message)
      else if (!cli.output.json) await cli.output.err(`${event.row.message}${event.row.partial ? '' : '\n'}`)
    }
    const task = await mags.images.task(id, { signal: leave.signal })
    if (requested.aborted && task.status !== 'completed') throw requested.reason
    if (task.status === 'failed') throw new CliError(task.error ?? 'The image could not be made.', { code: 'image_failed' })
    return task
  } finally {
    requested.removeEventListener('abort', onInterrupt)
  }
}

async function cancelForUser(cli: Cli, mags: Mags, id: string, leave: AbortController): Promise<void> {
  await cli.output.note('cancelling (once more leaves at once)')
  // The end of the task ends the process; the timer must not keep it.
  setTimeout(() => leave.abort(cli.interrupts.requested.reason), cancelPatienceMs).unref()
  await mags.images.cancelTask(id).catch(async (error: unknown) => {
    await cli.output.note(`it could not be cancelled: ${error instanceof Error ? error.message : String(error)}`)
    leave.abort(cli.interrupts.requested.reason)
  })
}
