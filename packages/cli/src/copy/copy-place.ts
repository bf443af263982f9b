import { basename, join } from 'node:path'
import { usageError } from '../exit/cli-error.ts'

/** One side of `mags cp`. */
export type CopyPlace = { readonly kind: 'local'; readonly path: string } | { readonly kind: 'sandbox'; readonly job: string; readonly path: string }

const form = "One side must be NAME:/PATH in a sandbox, such as 'mags cp web:/root/out.txt .' or 'mags cp data web:/root/'."

/** Which side is which, and the path in the sandbox as an absolute one (relative ones begin in `/root`). Throws a usage error for anything but one of each. */
export function parsePlaces(source: string, destination: string): { readonly from: CopyPlace; readonly to: CopyPlace } {
  const from = parsePlace(source)
  const to = parsePlace(destination)
  if (from.kind === to.kind) throw usageError(from.kind === 'local' ? form : `Both sides are in a sandbox. ${form}`)
  return { from, to }
}

/** A colon before any slash makes it a sandbox, as with scp; `./a:b` is a file here. */
function parsePlace(text: string): CopyPlace {
  const [, job, path] = /^([^/:]*):(.*)$/s.exec(text) ?? []
  if (job === undefined || path === undefined) {
    if (text === '') throw usageError(form)
    return { kind: 'local', path: text }
  }
  if (!/^[A-Za-z0-9._-]{1,63}$/.test(job))
    throw usageError(`${JSON.stringify(text)} does not begin with the name or id of a job. ${form} A file here with a colon in its name is ./${text}.`)
  if (path.includes('\0')) throw usageError('A path must not contain a NUL character.')
  // Not normalized: `folder/.` and `folder/` mean something.
  return { kind: 'sandbox', job, path: path.startsWith('/') ? path : `/root/${path}` }
}

/** Whether a path says of itself that it is a folder. */
export function namesFolder(path: string): boolean {
  return path.endsWith('/') || contentsOnly(path) || /(^|\/)\.\.$/.test(path)
}

/** `folder/.`: what is in it, not the folder itself, as with cp. */
export function contentsOnly(path: string): boolean {
  return path === '.' || path.endsWith('/.')
}

/** Where `source` goes when `folder` is a folder that is there. Throws a usage error for a source without a name, such as `/`. */
export function inside(folder: string, source: string): string {
  const name = basename(source)
  if (name === '' || name === '.' || name === '..')
    throw usageError(`${JSON.stringify(source)} has no name of its own to copy it under. Name the destination in full.`)
  return join(folder, name)
}
