import { posix } from 'node:path'
import { MagsError } from '@mags/protocol'
import { contextLimits } from './context-archive.ts'
import { type CheckedEntry, type Rewritten, rewriteTar } from './rewrite-tar.ts'
import type { SourceMatch, SourceTree } from './source-tree.ts'
import type { Stage } from './stage.ts'
import { findOwner } from './stage-user.ts'

export interface CopyOrder {
  readonly tree: SourceTree
  readonly sources: readonly string[]
  /** As it was written: a slash at its end says that it is a folder. */
  readonly destination: string
  readonly chown: string | undefined
  readonly chmod: number | undefined
  /** ADD: archives are unpacked in the destination. */
  readonly unpacks: boolean
}

/** Makes the folder when it is not there, and unpacks what comes. GNU tar would put a folder in the place of a link to one; busybox does not, and lacks the flag. */
const unpack = `umask 022
[ -d "$1" ] || { mkdir -p -- "$1" && { [ -z "$2" ] || chown "$2" "$1"; }; } || exit 1
command -v tar >/dev/null || { echo "this image has no tar, which files are copied with" >&2; exit 127; }
if tar --version 2>/dev/null | grep -q GNU; then exec tar --extract --file=- --preserve-permissions --same-owner --numeric-owner --keep-directory-symlink --directory="$1"; fi
exec tar -x -p -f - -C "$1"`

/** Prints the names of those that were archives. */
const unpackThose = `umask 022
cd "$1" || exit 1
for file in *; do
  if tar -tf "$file" >/dev/null 2>&1; then
    mkdir -p -- "$2" && tar -xf "$file" -C "$2" || { rm -rf "$1"; exit 1; }
    echo "$file"
  fi
done
rm -rf "$1"`

/** COPY and ADD. Rejects with MagsError 'image_invalid' naming what is missing or refused. */
export async function copyFiles(stage: Stage, order: CopyOrder): Promise<void> {
  const matches: SourceMatch[] = []
  for (const source of order.sources) {
    const found = await order.tree.match(source)
    if (found.length === 0) throw new MagsError('image_invalid', `${JSON.stringify(source)} is not in ${order.tree.words}`)
    matches.push(...found)
  }
  const destination = stage.resolve(order.destination)
  const slash = /(^|\/)\.{0,2}$/.test(order.destination)
  if (matches.length > 1 && !slash && !matches.every(({ isFolder }) => isFolder))
    throw new MagsError('image_invalid', `several files need a folder to go to: write ${order.destination}/`)
  const intoFolder = slash || matches.some(({ isFolder }) => isFolder) || (await stage.isFolder(destination))
  const folder = intoFolder ? destination : posix.dirname(destination)
  const owner = order.chown === undefined ? { uid: 0, gid: 0 } : await findOwner((await stage.root.open()).files, order.chown)
  const plain = order.unpacks ? await unpackArchives(stage, order.tree, matches, folder) : matches
  if (plain.length === 0) return
  const targetOf = targetsOf(plain.map((match) => ({ match, target: match.isFolder ? '' : intoFolder ? match.name : posix.basename(destination) })))
  const rewrite = (entry: CheckedEntry): Rewritten | undefined => {
    const path = targetOf(entry.path)
    return path === undefined ? undefined : { path, ...owner, mode: order.chmod ?? (entry.kind === 'directory' ? entry.mode & 0o1777 : entry.mode) }
  }
  const tar = rewriteTar(order.tree.pack(plain.map(({ path }) => path)), contextLimits, rewrite)
  await stage.work(unpack, [folder, order.chown === undefined ? '' : `${owner.uid}:${owner.gid}`], tar)
}

/** Says where an entry goes; undefined: it is not meant. Of several that it belongs to the first counts. */
function targetsOf(targets: readonly { readonly match: SourceMatch; readonly target: string }[]): (path: string) => string | undefined {
  const files = new Map<string, { readonly index: number; readonly target: string }>()
  const folders = new Map<string, number>()
  for (const [index, { match, target }] of targets.entries()) {
    if (!match.isFolder && !files.has(match.path)) files.set(match.path, { index, target })
    if (match.isFolder && !folders.has(match.path)) folders.set(match.path, index)
  }
  return (path) => {
    let best = files.get(path)
    const consider = (folder: string) => {
      const index = folders.get(folder)
      if (index !== undefined && path !== '' && index < (best?.index ?? targets.length))
        best = { index, target: path.slice(folder === '' ? 0 : folder.length + 1) }
    }
    consider('')
    for (let slash = path.indexOf('/'); slash !== -1; slash = path.indexOf('/', slash + 1)) consider(path.slice(0, slash))
    return best?.target
  }
}

/** What ADD unpacks: archives that tar in the image can read. They are unpacked; returned are all matches that were none. */
async function unpackArchives(stage: Stage, tree: SourceTree, matches: readonly SourceMatch[], folder: string): Promise<readonly SourceMatch[]> {
  const files = matches.filter(({ isFolder }) => !isFolder)
  if (files.length === 0) return matches
  const temporary = `/tmp/.mags-add-${crypto.randomUUID()}`
  const indexes = new Map(files.map(({ path }, index) => [path, index]))
  const rewrite = (entry: CheckedEntry) => {
    const index = indexes.get(entry.path)
    return index === undefined ? undefined : { path: String(index) }
  }
  await stage.work(unpack, [temporary, ''], rewriteTar(tree.pack(files.map(({ path }) => path)), contextLimits, rewrite))
  const unpacked = new Set((await stage.work(unpackThose, [temporary, folder])).trim().split('\n').map(Number))
  return matches.filter((match) => match.isFolder || !unpacked.has(indexes.get(match.path) ?? -1))
}
