import { type Mags, MagsApiError } from '@mags/sdk'
import { Command } from 'commander'
import type { Cli, CommandDefinition } from '../cli.ts'
import type { Copied } from '../copy/copied.ts'
import { type CopyPlace, parsePlaces } from '../copy/copy-place.ts'
import { CliError } from '../exit/cli-error.ts'
import { openSession } from '../server/session.ts'
import { formatBytes } from '../terminal/format-bytes.ts'

export const cpCommand: CommandDefinition = (cli, done) =>
  new Command('cp')
    .summary('copy files and folders into and out of a sandbox')
    .description(
      "Copies a file or folder between this machine and the sandbox of a persistent or running job: one side is NAME:/PATH. Folders go with all in them; 'folder/.' is what is in one.",
    )
    .argument('<src>', 'file or folder; in a sandbox NAME:/PATH')
    .argument('<dst>', 'where to; into it, when it is a folder')
    .option('--json', 'print what was copied as JSON')
    .action(async (source: string, destination: string) => {
      const { from, to } = parsePlaces(source, destination)
      const copied = await copy(cli, from, to)
      if (cli.output.json) await cli.output.data({ source, destination: copied.destination, bytes: copied.bytes, skipped: copied.skipped })
      else await cli.output.aside(`copied ${source} to ${copied.destination} (${formatBytes(copied.bytes)})`)
      if (copied.skipped.length > 0) await cli.output.note(`left out, for they are neither files, folders nor links: ${someOf(copied.skipped)}`)
      done(0)
    })

async function copy(cli: Cli, from: CopyPlace, to: CopyPlace): Promise<Copied> {
  const name = from.kind === 'sandbox' ? from.job : to.kind === 'sandbox' ? to.job : ''
  const signal = cli.interrupts.requested
  // A name may get a new job while we copy; its request id stays.
  const { mags, first: status } = await openSession(cli, (client: Mags) => client.status(name, { signal }))
  try {
    if (to.kind === 'sandbox' && from.kind === 'local') {
      const { copyIntoSandbox } = await import('../copy/copy-in.ts')
      return await copyIntoSandbox(cli, mags, from.path, status.requestId, to.path)
    }
    const { copyOutOfSandbox } = await import('../copy/copy-out.ts')
    return await copyOutOfSandbox(cli, mags, status.requestId, from.path, to.path)
  } catch (error) {
    if (!isLocal(error)) throw error
    // Files are written beside their place first; that name means nothing to the user.
    const words = error.code === 'ENOENT' && to.kind === 'local' ? `there is no folder for ${to.path}; make it first (mkdir -p)` : error.message
    throw new CliError(`The copy failed on this machine: ${words}.`, { code: 'local_file', cause: error })
  }
}

/** A fault of a file system call here: no folder to write to, no permission, no space. */
function isLocal(error: unknown): error is NodeJS.ErrnoException {
  return error instanceof Error && !(error instanceof MagsApiError) && typeof (error as NodeJS.ErrnoException).syscall === 'string'
}

function someOf(paths: readonly string[]): string {
  return paths.length > 5 ? `${paths.slice(0, 5).join(', ')} and ${paths.length - 5} more` : paths.join(', ')
}
