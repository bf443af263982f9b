import { must } from './byte-reader.ts'
import { compareTreeOrder, isUnder } from './tree-order.ts'
import { type TreeRecord, treeLimits } from './tree-record.ts'

/** Sees whether records are a tree: the root first, each path once, in order, in a folder that is there. Throws FormatError. */
export class TreeChecker {
  /** The folders that the next path may be in: the one read last and those around it. */
  readonly #folders: Buffer[] = []
  #last: Buffer | undefined
  count = 0

  see({ path, kind }: Pick<TreeRecord, 'path'> & { readonly kind: string }): void {
    must(++this.count <= treeLimits.entries, `there are more than ${treeLimits.entries} paths`)
    if (this.#last === undefined) must(path.length === 0 && kind === 'directory', 'the tree does not begin with its root folder')
    else {
      must(compareTreeOrder(this.#last, path) < 0, 'the paths are not in order')
      let folder = this.#folders.at(-1)
      while (folder !== undefined && !isUnder(path, folder)) {
        this.#folders.pop()
        folder = this.#folders.at(-1)
      }
      must(folder !== undefined, 'a path is in no folder')
      must(path.indexOf('/', folder.length === 0 ? 0 : folder.length + 1) < 0, 'a path is in a folder that is not there')
    }
    this.#last = path
    if (kind === 'directory') this.#folders.push(path)
  }
}
