import { pathForPeople } from './tar-entry.ts'
import { TarError } from './tar-error.ts'

/** Limits of Linux (limits.h): a path, and one name of it, in bytes. */
const maxPathBytes = 4096
const maxNameBytes = 255

/**
 * The names of a path in an archive, from the top; none for the top itself. Throws TarError for a path that would lead out of the folder it
 * is unpacked in (absolute, or with `..`), or that no system takes.
 */
export function namesOf(path: string): string[] {
  const refuse = (why: string) => new TarError(`The archive has ${JSON.stringify(pathForPeople(path))}, ${why}; that is refused.`)
  if (path === '') throw refuse('a path without a name')
  if (path.includes('\0')) throw refuse('a path with a NUL character')
  if (path.startsWith('/')) throw refuse('an absolute path')
  if (path.length > maxPathBytes) throw refuse(`a path of ${path.length.toLocaleString('en-US')} bytes`)
  const names = path.split('/').filter((name) => name !== '' && name !== '.')
  if (names.includes('..')) throw refuse('a path that leads out of the folder')
  if (names.some((name) => name.length > maxNameBytes)) throw refuse(`a name over ${maxNameBytes} bytes`)
  return names
}
