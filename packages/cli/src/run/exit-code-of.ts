import type { JobState, Mags } from '@mags/sdk'
import type { Cli } from '../cli.ts'
import { exitCodes } from '../exit/cli-error.ts'

/**
 * The exit code for a job that has ended: the script's own where there is one; otherwise ours, with the reason said, unless it has been
 * (`said`, the last the server wrote into the log).
 */
export async function exitCodeOf(cli: Cli, mags: Mags, id: string, end: { status: JobState; exitCode: number | null }, said?: string): Promise<number> {
  // A script that ended well in a job that did not: its workspace could not be saved, say.
  const unlike = end.status === 'error' && end.exitCode === 0
  if (end.exitCode !== null && !unlike) return end.exitCode
  if (end.status === 'completed') return exitCodes.ok
  if (end.status === 'stopped') {
    await cli.output.note('the job was stopped')
    return exitCodes.failure
  }
  const { error } = await mags.status(id)
  if (error == null || error !== said) await cli.output.note(error ?? `the job ended as '${end.status}'${unlike ? '' : ' without an exit code'}`)
  return exitCodes.failure
}
