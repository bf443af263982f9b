import { posix } from 'node:path'
import type { Mags } from '@mags/sdk'
import { packFolder } from '../archive/pack-folder.ts'
import type { Cli } from '../cli.ts'
import { CliError } from '../exit/cli-error.ts'
import { localStats } from '../files/local-stats.ts'
import { formatBytes } from '../terminal/format-bytes.ts'
import { Progress } from '../terminal/progress.ts'
import type { Copied } from './copied.ts'
import { contentsOnly, inside, namesFolder } from './copy-place.ts'
import { isSandboxFolder } from './is-sandbox-folder.ts'

/** What the API takes in one file. */
const maxBytes = 1024 ** 3

/** Copies a file or folder of this machine into a sandbox, as `cp -r` would: into `to` when that is a folder, else as `to`. */
export async function copyIntoSandbox(cli: Cli, mags: Mags, from: string, job: string, to: string): Promise<Copied> {
  const signal = cli.interrupts.requested
  const folder = isFolder(from)
  const into = (await isSandboxFolder(mags, job, to, signal)) ?? namesFolder(to)
  const asItself = folder && contentsOnly(from)
  const destination = posix.normalize(into && !asItself ? inside(to, from) : to)
  using progress = new Progress(cli.output)
  if (!folder) {
    let bytes = 0
    const onProgress = (sent: number, total: number | undefined) => {
      bytes = sent
      progress.update(() => `copying: ${formatBytes(sent)}${total === undefined ? '' : ` of ${formatBytes(total)}`}`)
    }
    await mags.copyIn(job, from, destination, { signal, onProgress })
    return { destination, bytes, skipped: [] }
  }
  const skipped: string[] = []
  const sent = { bytes: 0 }
  const tar = counted(packFolder(from, { onSkip: (path) => skipped.push(path) }), (count) => {
    sent.bytes += count
    progress.update(() => `copying: ${formatBytes(sent.bytes)}`)
  })
  await mags.writeArchive(job, destination, tar, { signal })
  return { destination, bytes: sent.bytes, skipped }
}

/** Throws CliError for what cannot be copied. */
function isFolder(path: string): boolean {
  const stats = localStats(path)
  if (stats.isDirectory()) return true
  if (!stats.isFile()) throw new CliError(`${path} is neither a file nor a folder.`, { code: 'not_a_file' })
  if (stats.size > maxBytes) {
    const words = `${path} has ${formatBytes(stats.size)}, and one file or folder copied into a sandbox may have 1 GiB.`
    throw new CliError(`${words} Copy it in parts (split -b 1G), or let the sandbox download it.`, { code: 'too_large' })
  }
  return false
}

async function* counted(parts: AsyncIterable<Uint8Array>, onPart: (count: number) => void): AsyncGenerator<Uint8Array> {
  for await (const part of parts) {
    yield part
    onPart(part.length)
  }
}
