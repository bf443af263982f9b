import { MagsError } from '@mags/protocol'
import type { BlobStore } from './blob-store.ts'
import type { EncryptionKey } from './encryption-key.ts'

const formatKey = 'format'
/** Grows when what is written can no longer be read by the releases before. */
export const storeFormat = 1

interface StoreFormat {
  readonly format: number
  readonly encryption: 'none' | 'aes-256-gcm'
  readonly keyCheck?: string
}

/**
 * Looks at the store's `format` object, or writes it at the first use. It is never encrypted itself.
 *
 * Rejects with MagsError('object_store_refused') when the store is of a later format, is encrypted and there is no key, is not and there is one, or is with another key.
 */
export async function checkStoreFormat(store: BlobStore, key: EncryptionKey | undefined): Promise<void> {
  const refuse = (words: string) => {
    throw new MagsError('object_store_refused', `${store.description}: ${words}`)
  }
  let found = await readFormat(store)
  if (!found) {
    for (const prefix of ['workspaces/', 'packs/']) {
      for await (const { key: present } of store.list(prefix))
        refuse(
          `there are objects (${present}) but no object '${formatKey}', so it is not known how they were written. Restore that object, or use an empty bucket, prefix or folder.`,
        )
    }
    const wanted = { format: storeFormat, encryption: key ? 'aes-256-gcm' : 'none', ...(key ? { key_check: key.checkValue } : {}) }
    if (await store.put(formatKey, Buffer.from(`${JSON.stringify(wanted)}\n`), { kind: 'absent' })) return
    // Another server was faster; it may have another key.
    found = await readFormat(store)
    if (!found) return refuse(`the object '${formatKey}' cannot be kept there.`)
  }
  if (found.format !== storeFormat) refuse(`its objects are of format ${found.format}, this release knows ${storeFormat}. Use a newer release.`)
  if (key && found.encryption === 'none')
    refuse(
      'its objects are not encrypted, but MAGS_ENCRYPTION_KEY_FILE is set. Encryption is chosen with an empty store: use another bucket, prefix or folder.',
    )
  if (!key && found.encryption !== 'none') refuse('its objects are encrypted. Set MAGS_ENCRYPTION_KEY_FILE to the file with the key.')
  if (key && found.keyCheck !== key.checkValue) refuse('its objects were encrypted with another key than the one in MAGS_ENCRYPTION_KEY_FILE.')
}

async function readFormat(store: BlobStore): Promise<StoreFormat | undefined> {
  const found = await store.get(formatKey)
  if (!found) return undefined
  try {
    if (found.bytes.length > 4096) throw new Error('too long')
    const { format, encryption, key_check } = JSON.parse(found.bytes.toString('utf8')) as Record<string, unknown>
    if (!Number.isSafeInteger(format) || (encryption !== 'none' && encryption !== 'aes-256-gcm') || (key_check !== undefined && typeof key_check !== 'string'))
      throw new Error('wrong fields')
    return { format: format as number, encryption, ...(key_check === undefined ? {} : { keyCheck: key_check }) }
  } catch (error) {
    throw new MagsError(
      'object_store_refused',
      `${store.description}: the object '${formatKey}' cannot be read (${(error as Error).message}). It is written by Mags and says how the others are; restore it.`,
      { cause: error },
    )
  }
}
