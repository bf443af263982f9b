import type { LayerSession } from '../../layers/layer-session.ts'
import type { Manifest, PackStore } from '../repository/repository.ts'
import { restoreTree } from '../restore/restore-tree.ts'
import { writeState } from '../save/state-file.ts'

const reportEveryMs = 1_000
const bytesPerMb = 2 ** 20
const nanosPerMs = 1_000_000n

export interface RestoreLayerOptions {
  readonly stateFile: string
  readonly onProgress: (words: string) => void
  readonly abort?: AbortSignal
}

/** Reads a version into an empty layer and keeps what is then known of its tree. Speaks when it takes longer than a second. */
export async function restoreLayer(packs: PackStore, session: LayerSession, manifest: Manifest, options: RestoreLayerOptions) {
  let reported = performance.now()
  const wholeMb = Math.ceil(manifest.sizeBytes / bytesPerMb)
  const state = await restoreTree({
    session,
    manifest,
    packs,
    clock: () => BigInt(Date.now()) * nanosPerMs,
    abort: options.abort,
    onProgress({ bytes, entries }) {
      const now = performance.now()
      if (now - reported < reportEveryMs) return
      reported = now
      options.onProgress(`restoring the workspace: ${Math.floor(bytes / bytesPerMb)} of ${wholeMb} MB, ${entries} of ${manifest.entryCount} paths`)
    },
  })
  await writeState(options.stateFile, state)
}
