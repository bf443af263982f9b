import { mkdirSync, rmdirSync, statSync } from 'node:fs'
import type { Mags } from '@mags/sdk'
import { unpackTar } from '../archive/unpack-tar.ts'
import type { Cli } from '../cli.ts'
import { CliError, usageError } from '../exit/cli-error.ts'
import { formatBytes } from '../terminal/format-bytes.ts'
import { Progress } from '../terminal/progress.ts'
import type { Copied } from './copied.ts'
import { contentsOnly, inside, namesFolder } from './copy-place.ts'
import { isSandboxFolder } from './is-sandbox-folder.ts'

/** Copies a file or folder of a sandbox to this machine, as `cp -r` would: into `to` when that is a folder, else as `to`. */
export async function copyOutOfSandbox(cli: Cli, mags: Mags, job: string, from: string, to: string): Promise<Copied> {
  const signal = cli.interrupts.requested
  const folder = await isSandboxFolder(mags, job, from, signal)
  if (folder === undefined) throw new CliError(`There is no ${from} in the sandbox.`, { code: 'not_found' })
  const there = kindOf(to)
  if (there === undefined && !folder && namesFolder(to)) throw usageError(`There is no folder ${to}. Make it first, or name a file.`)
  const destination = there === 'folder' && !(folder && contentsOnly(from)) ? inside(to, from) : to
  using progress = new Progress(cli.output)
  if (!folder) {
    if (kindOf(destination) === 'folder') throw new CliError(`${destination} is a folder. Move it away, or name another file.`, { code: 'is_a_folder' })
    let bytes = 0
    const onProgress = (received: number, total: number | undefined) => {
      bytes = received
      progress.update(() => `copying: ${formatBytes(received)}${total === undefined ? '' : ` of ${formatBytes(total)}`}`)
    }
    await mags.copyOut(job, from, destination, { signal, onProgress })
    return { destination, bytes, skipped: [] }
  }
  const made = makeFolder(destination)
  try {
    const onProgress = (written: number) => progress.update(() => `copying: ${formatBytes(written)}`)
    const { bytes, skipped } = await unpackTar(mags.readArchive(job, from, { signal }), destination, { signal, onProgress })
    return { destination, bytes, skipped }
  } catch (error) {
    if (made) removeEmpty(destination)
    throw error
  }
}

function kindOf(path: string): 'folder' | 'other' | undefined {
  return statSync(path, { throwIfNoEntry: false })?.isDirectory() === true
    ? 'folder'
    : statSync(path, { throwIfNoEntry: false }) === undefined
      ? undefined
      : 'other'
}

/** True when it was not there. Folders above it are not made: a wrong path is more likely than a wish for them. */
function makeFolder(path: string): boolean {
  if (kindOf(path) === 'folder') return false
  try {
    mkdirSync(path)
    return true
  } catch (error) {
    throw usageError(`The folder cannot be made: ${error instanceof Error ? error.message : String(error)}.`)
  }
}

function removeEmpty(path: string): void {
  try {
    rmdirSync(path)
  } catch {
    // What came before the failure stays.
  }
}
