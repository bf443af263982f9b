import { basename, dirname, isAbsolute, join, posix, relative, resolve } from 'node:path'
import { usageError } from '../exit/cli-error.ts'
import { localStats } from '../files/local-stats.ts'

/** What `mags image build` is asked to build. */
export type BuildSource =
  | { readonly kind: 'recipe'; readonly recipe: string }
  | { readonly kind: 'folder'; readonly folder: string; readonly dockerfile: string }

/** What `mags image import` is asked to take. */
export type ImportSource =
  | { readonly kind: 'reference'; readonly reference: string }
  | { readonly kind: 'file'; readonly path: string }
  | { readonly kind: 'layout'; readonly folder: string }

/** A path that is there is a Dockerfile or the folder of one, everything else a recipe. `dockerfile` is what --file says. Throws a usage error. */
export function findBuildSource(what: string, dockerfile: string | undefined): BuildSource {
  if (!exists(what)) {
    if (looksLikePath(what) || dockerfile !== undefined) localStats(what)
    return { kind: 'recipe', recipe: what }
  }
  if (localStats(what).isDirectory()) return { kind: 'folder', folder: what, dockerfile: inside(what, dockerfile ?? join(what, 'Dockerfile')) }
  if (dockerfile !== undefined) throw usageError('--file goes with a folder.')
  return { kind: 'folder', folder: dirname(what), dockerfile: basename(what) }
}

/** A path that is there is an archive or the folder of an OCI layout, everything else a reference. Throws a usage error. */
export function findImportSource(what: string): ImportSource {
  if (!exists(what)) {
    if (looksLikePath(what) || /\.(tar|tgz|txz)(\.\w+)?$/.test(what)) localStats(what)
    return { kind: 'reference', reference: what }
  }
  if (!localStats(what).isDirectory()) return { kind: 'file', path: what }
  if (exists(join(what, 'oci-layout'))) return { kind: 'layout', folder: what }
  throw usageError(
    `${what} is a folder without an OCI layout. A root file system comes as an archive, packed by who may read all of it: 'tar --numeric-owner -C ${what} -cf root.tar .', then 'mags image import root.tar'.`,
  )
}

/** What an image is called when nobody says. Throws a usage error when that would be no name. */
export function defaultName(what: string, given: string | undefined): string {
  const last = basename(resolve('/', what.replace(/@sha256:.*$/, '').replace(/:[\w.-]*$/, '')))
  const name = given ?? last.toLowerCase().replace(/\.(tar|tgz|txz|oci)(\.\w+)?$/, '')
  if (/^[a-z0-9][a-z0-9._-]{0,62}$/.test(name)) return name
  throw usageError(
    given === undefined ? 'It needs a name: --name.' : `--name: ${JSON.stringify(name)} must be 1 to 63 of a-z 0-9 . _ - and begin with a letter or digit.`,
  )
}

function inside(folder: string, file: string): string {
  if (!exists(file) && exists(join(folder, file))) throw usageError(`--file is a path as seen from here: ${join(folder, file)}.`)
  localStats(file)
  const path = relative(resolve(folder), resolve(file))
  if (path.startsWith('..') || isAbsolute(path)) throw usageError(`${file} is not in ${folder}, which is what is sent; the Dockerfile has to be.`)
  return path.split(/[\\/]/).join(posix.sep)
}

const looksLikePath = (what: string) => /^(\.{0,2}\/|\.{1,2}$|~)/.test(what)

function exists(path: string): boolean {
  try {
    localStats(path)
    return true
  } catch {
    return false
  }
}
