import type { Mags } from '@mags/sdk'
import type { Cli } from '../cli.ts'
import { exitCodes } from '../exit/cli-error.ts'
import { followJob } from '../run/follow-job.ts'
import { writeRow } from '../run/write-row.ts'

export interface ShownRun {
  readonly id: string
  /** What the server said to it. */
  readonly answer: unknown
  readonly follow: boolean
}

/** Prints a run that has begun, or shows it to its end. Returns the exit code. */
export async function showRun(cli: Cli, mags: Mags, { id, answer, follow }: ShownRun): Promise<number> {
  const { output } = cli
  if (!follow) {
    await (output.json ? output.data(answer) : output.out(`${id}\n`))
    await output.aside(`'mags job logs -f ${id}' shows its output, 'mags job status ${id}' how it stands`)
    return exitCodes.ok
  }
  const exitCode = await followJob(cli, mags, id, async (row) => {
    if (!output.json) await writeRow(output, row)
  })
  if (output.json) await output.data(await mags.jobs.status(id))
  return exitCode
}
