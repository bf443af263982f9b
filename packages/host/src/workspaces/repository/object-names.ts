import { randomBytes } from 'node:crypto'
import { MagsError } from '@mags/protocol'
import type { PackId } from './repository.ts'

/**
 * Keys of everything in a store; see docs/workspace-format.md. Names of versions and packs end in random digits and are never used twice, so that a deletion that comes late can never meet a later object.
 */
export const objectNames = {
  workspaces: 'workspaces/',
  packs: 'packs/',
  checks: 'checks/',
  collector: 'collector/state',
  workspace: (storageId: string) => `workspaces/${checkStorageId(storageId)}/`,
  head: (storageId: string) => `workspaces/${checkStorageId(storageId)}/head`,
  newVersion: (storageId: string, version: number, fence: number) => `workspaces/${checkStorageId(storageId)}/versions/${version}-${fence}-${randomDigits()}`,
  packCopies: (id: PackId) => `packs/${id.slice(0, 2)}/${id}-`,
  pack: (id: PackId, copy: string) => `packs/${id.slice(0, 2)}/${id}-${copy}`,
  newCopy: () => randomDigits(),
} as const

/** Of a pack's key; undefined for what is none. */
export function parsePackKey(key: string): { readonly id: PackId; readonly copy: string } | undefined {
  const [, id, copy] = /^packs\/[0-9a-f]{2}\/([0-9a-f]{64})-([0-9a-f]{16})$/.exec(key) ?? []
  return id === undefined || copy === undefined || key !== objectNames.pack(id, copy) ? undefined : { id, copy }
}

/** Of a key under `workspaces/`; `version` is undefined for the head. */
export function parseWorkspaceKey(key: string): { readonly storageId: string; readonly kind: 'head' | 'version' } | undefined {
  const [, storageId, rest] = /^workspaces\/([A-Za-z0-9_-]{1,100})\/(head|versions\/\d{1,16}-\d{1,16}-[0-9a-f]{16})$/.exec(key) ?? []
  return storageId === undefined || rest === undefined ? undefined : { storageId, kind: rest === 'head' ? 'head' : 'version' }
}

function checkStorageId(storageId: string): string {
  if (!/^[A-Za-z0-9_-]{1,100}$/.test(storageId))
    throw new MagsError('internal', `${JSON.stringify(storageId.slice(0, 200))} cannot name a workspace in a store.`)
  return storageId
}

function randomDigits(): string {
  return randomBytes(8).toString('hex')
}
