import type { LayerChange, LayerContent, LayerEntry, LayerSession, LayerWrite } from '../../layers/layer-session.ts'
import { isUnder } from '../tree/tree-order.ts'

/** Written anew by the agent at every start (native/agent/identity.c): they say which machine this is, and are no part of a workspace. */
const machineFiles = new Set(['etc/hostname', 'etc/hosts', 'etc/machine-id', 'etc/resolv.conf'])
const folder = Buffer.from('etc/')

/** Also what is in one of them, should somebody have made a folder of it. */
function isKept(path: Buffer): boolean {
  // Nearly all paths end here.
  if (path.length < folder.length || !path.subarray(0, folder.length).equals(folder)) return true
  return !machineFiles.has(path.toString('latin1').split('/', 2).join('/'))
}

/** The root of a layer of which one folder is kept: the same for every version, whatever a sandbox did to its own. */
const plainRoot: LayerEntry = {
  path: Buffer.alloc(0),
  kind: 'directory',
  mode: 0o755,
  uid: 0,
  gid: 0,
  links: 1,
  attributes: [],
  stamp: { inode: 0n, sizeBytes: 0, mtimeNs: 0n, ctimeNs: 0n },
}

/** A layer without the files that belong to the machine it was used on; with a `scope`, the name of a folder at the top, without all that is not in there. */
export class WorkspaceSession implements LayerSession {
  readonly #layer: LayerSession
  readonly #scope: Buffer | undefined

  constructor(layer: LayerSession, scope?: string) {
    this.#layer = layer
    this.#scope = scope === undefined ? undefined : Buffer.from(scope)
  }

  async *walk(): AsyncIterable<readonly LayerEntry[]> {
    for await (const entries of this.#layer.walk()) {
      const kept = entries.filter(({ path }) => this.#keeps(path))
      yield this.#scope !== undefined && kept[0]?.path.length === 0 ? [plainRoot, ...kept.slice(1)] : kept
    }
  }

  async *changes(): AsyncIterable<readonly LayerChange[]> {
    for await (const changes of this.#layer.changes()) {
      yield changes.filter((change) => {
        const path = 'removed' in change ? change.removed : change.present.path
        return this.#keeps(path) && !(this.#scope !== undefined && path.length === 0)
      })
    }
  }

  read(paths: readonly Buffer[]): AsyncIterable<LayerContent> {
    return this.#layer.read(paths)
  }

  write(tree: AsyncIterable<LayerWrite>): Promise<void> {
    return this.#layer.write(tree)
  }

  close() {
    this.#layer.close()
  }

  /** Asked of the worker, too; but a guest's may say anything. */
  #keeps(path: Buffer): boolean {
    if (!isKept(path)) return false
    return this.#scope === undefined || path.length === 0 || path.equals(this.#scope) || isUnder(path, this.#scope)
  }
}
