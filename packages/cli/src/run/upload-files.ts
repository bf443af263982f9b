import type { Mags, UploadedFileWire } from '@mags/sdk'
import type { Cli } from '../cli.ts'
import { formatBytes } from '../terminal/format-bytes.ts'
import { Progress } from '../terminal/progress.ts'
import { checkFiles } from './check-files.ts'

/** Uploads files of this machine, all or none: Ctrl-C takes back those that are up. */
export async function uploadPaths(cli: Cli, mags: Mags, paths: readonly string[]): Promise<UploadedFileWire[]> {
  const totalBytes = checkFiles(paths).reduce((sum, size) => sum + size, 0)
  const sent: number[] = paths.map(() => 0)
  using progress = new Progress(cli.output)
  return await mags.uploadFiles(paths, {
    signal: cli.interrupts.requested,
    onProgress: (index, sentBytes) => {
      sent[index] = sentBytes
      progress.update(() => `uploading: ${formatBytes(sent.reduce((sum, size) => sum + size, 0))} of ${formatBytes(totalBytes)}`)
    },
  })
}
