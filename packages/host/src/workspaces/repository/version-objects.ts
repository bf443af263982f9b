import { hash } from 'node:crypto'
import type { BlobStore } from '../blobs/blob-store.ts'
import { decodeHead, type Head, type HeadVersion } from './head.ts'
import { objectNames } from './object-names.ts'
import { damagedObject } from './stored-document.ts'
import { decodeManifest, type StoredManifest } from './stored-manifest.ts'

export interface FoundHead {
  readonly head: Head
  readonly etag: string
}

/** Undefined when there is none. Rejects with MagsError('workspace_damaged') naming the object. */
export async function findHead(store: BlobStore, storageId: string): Promise<FoundHead | undefined> {
  const key = objectNames.head(storageId)
  const found = await store.get(key)
  return found && { head: await decodeHead(key, found.bytes), etag: found.etag }
}

/** Rejects with MagsError('workspace_damaged') naming the object when it is missing or another one. */
export async function readVersion(store: BlobStore, version: HeadVersion): Promise<StoredManifest> {
  const found = await store.get(version.key)
  if (!found) throw damagedObject(version.key, `it is missing, version ${version.version} of the workspace needs it`)
  if (hash('sha256', found.bytes, 'hex') !== version.sha256) throw damagedObject(version.key, 'it is not the one its workspace names')
  return decodeManifest(version.key, found.bytes)
}
