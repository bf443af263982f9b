import type { LayerChange, LayerContent, LayerEntry, LayerSession, LayerWrite } from '../../layers/layer-session.ts'

/** Written anew by the agent at every start (native/agent/identity.c): they say which machine this is, and are no part of a workspace. */
const machineFiles = new Set(['etc/hostname', 'etc/hosts', 'etc/machine-id', 'etc/resolv.conf'])
const folder = Buffer.from('etc/')

/** Also what is in one of them, should somebody have made a folder of it. */
function isKept(path: Buffer): boolean {
  // Nearly all paths end here.
  if (path.length < folder.length || !path.subarray(0, folder.length).equals(folder)) return true
  return !machineFiles.has(path.toString('latin1').split('/', 2).join('/'))
}

/** A layer without the files that belong to the machine it was used on. */
export class WorkspaceSession implements LayerSession {
  readonly #layer: LayerSession

  constructor(layer: LayerSession) {
    this.#layer = layer
  }

  async *walk(): AsyncIterable<readonly LayerEntry[]> {
    for await (const entries of this.#layer.walk()) yield entries.filter(({ path }) => isKept(path))
  }

  async *changes(): AsyncIterable<readonly LayerChange[]> {
    for await (const changes of this.#layer.changes()) yield changes.filter((change) => isKept('removed' in change ? change.removed : change.present.path))
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
}
