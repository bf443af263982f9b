import type { BlobStore } from './blob-store.ts'
import type { BlobStoreConfig } from './blob-store-config.ts'
import { checkBlobStore } from './check-blob-store.ts'
import { EncryptedBlobStore } from './encrypted-blob-store.ts'
import { readEncryptionKey } from './encryption-key.ts'
import { checkStoreFormat } from './store-format.ts'

/**
 * Opens a store, proves that it does what versions of workspaces rest on, and that it was written in our way. Rejects with MagsError('object_store_unavailable') or ('object_store_refused').
 */
export async function openBlobStore(config: BlobStoreConfig): Promise<BlobStore> {
  const key = config.keyFile === undefined ? undefined : await readEncryptionKey(config.keyFile)
  const store = await openPlace(config.place)
  try {
    await checkBlobStore(store)
    await checkStoreFormat(store, key)
  } catch (error) {
    store.close()
    throw error
  }
  return key ? new EncryptedBlobStore(store, key) : store
}

async function openPlace(place: BlobStoreConfig['place']): Promise<BlobStore> {
  if (place.kind === 'folder') {
    const { FolderBlobStore } = await import('./folder-blob-store.ts')
    return FolderBlobStore.open(place.folder)
  }
  const { S3BlobStore } = await import('./s3-blob-store.ts')
  return S3BlobStore.open(place.s3)
}
