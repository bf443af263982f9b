import { type Stats, statSync } from 'node:fs'
import { usageError } from '../exit/cli-error.ts'

/** What stands at `path` on this machine, links followed. Throws a usage error that names the path and what is wrong. */
export function localStats(path: string): Stats {
  try {
    return statSync(path)
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException
    throw usageError(code === 'ENOENT' ? `There is no ${path} on this machine.` : `${path} cannot be read: ${message}.`)
  }
}
