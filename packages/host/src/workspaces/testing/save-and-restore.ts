import { MemoryLayer } from '../../layers/testing/memory-layer.ts'
import type { Manifest } from '../repository/repository.ts'
import { restoreTree } from '../restore/restore-tree.ts'
import type { SaveState } from '../save/save-state.ts'
import { type SaveInput, type SaveResult, saveTree } from '../save/save-tree.ts'
import type { MemoryPackStore } from './memory-pack-store.ts'

export const testImage = { name: 'debian-12', digest: 'a'.repeat(64) }

/** Saves a layer in memory, with a session of its own unless one is given. */
export function saveLayer(layer: MemoryLayer, packs: MemoryPackStore, more: Partial<SaveInput> = {}): Promise<SaveResult> {
  return saveTree({ session: layer.session(), packs, image: testImage, clock: () => layer.tick(), ...more })
}

/** A new layer with a version in it, and what is known of it. */
export async function restoreLayer(manifest: Manifest, packs: MemoryPackStore): Promise<{ readonly layer: MemoryLayer; readonly state: SaveState }> {
  const layer = new MemoryLayer()
  const state = await restoreTree({ session: layer.session(), manifest, packs, clock: () => layer.tick() })
  return { layer, state }
}
