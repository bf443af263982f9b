import { basename } from 'node:path'
import { CliError, usageError } from '../exit/cli-error.ts'
import { localStats } from '../files/local-stats.ts'

/** What the API takes. */
const maxFileBytes = 100 * 1024 * 1024

/** Looks at all files of `-f` before the first one goes out. Throws CliError naming the one that cannot. Returns their sizes. */
export function checkFiles(paths: readonly string[]): number[] {
  const names = new Map<string, string>()
  return paths.map((path) => {
    const stats = localStats(path)
    if (stats.isDirectory()) throw usageError(`${path} is a folder. 'mags cp' copies folders; or pack it first: tar -cf folder.tar ${path}.`)
    if (!stats.isFile()) throw usageError(`${path} is not a regular file.`)
    if (stats.size > maxFileBytes)
      throw new CliError(`${path} is over 100 MB, more than can be uploaded. 'mags cp' copies bigger ones into a sandbox that runs ('mags new').`, {
        code: 'too_large',
      })
    const earlier = names.get(basename(path))
    if (earlier !== undefined) throw usageError(`${earlier} and ${path} would both be /root/${basename(path)} in the sandbox. Rename one.`)
    names.set(basename(path), path)
    return stats.size
  })
}
