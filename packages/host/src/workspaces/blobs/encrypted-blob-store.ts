import { createCipheriv, createDecipheriv, randomBytes } from 'node:crypto'
import { MagsError } from '@mags/protocol'
import { type Blob, type BlobInfo, type BlobStore, maxBlobBytes, type PutCondition } from './blob-store.ts'
import type { EncryptionKey } from './encryption-key.ts'

const magic = Buffer.from('MGSE\x01', 'latin1')
const keyIdBytes = 8
const nonceBytes = 12
const tagBytes = 16
const headerBytes = magic.length + keyIdBytes + nonceBytes
const overheadBytes = headerBytes + tagBytes

/**
 * Encrypts what goes through it: `MGSE` 0x01, key id (8), nonce (12), AES-256-GCM ciphertext, tag (16). Header and key name are authenticated with it, so that no object can be put in another's place. Names, sizes
 * and times stay visible. Nonces are random: one key is good for 2^32 objects (NIST SP 800-38D, 8.3).
 */
export class EncryptedBlobStore implements BlobStore {
  readonly description: string
  readonly #inner: BlobStore
  readonly #key: EncryptionKey

  constructor(inner: BlobStore, key: EncryptionKey) {
    this.description = `${inner.description}, encrypted`
    this.#inner = inner
    this.#key = key
  }

  async get(key: string, abort?: AbortSignal): Promise<Blob | undefined> {
    const found = await this.#inner.get(key, abort)
    return found && { bytes: this.#open(key, found.bytes), etag: found.etag }
  }

  async put(key: string, bytes: Uint8Array, condition?: PutCondition): Promise<{ readonly etag: string } | undefined> {
    if (bytes.length > maxBlobBytes) throw new MagsError('object_store_refused', `${key} is over 64 MiB.`)
    return this.#inner.put(key, this.#seal(key, bytes), condition)
  }

  delete(keys: readonly string[]): Promise<void> {
    return this.#inner.delete(keys)
  }

  async *list(prefix: string): AsyncIterable<BlobInfo> {
    for await (const info of this.#inner.list(prefix)) yield { ...info, sizeBytes: Math.max(0, info.sizeBytes - overheadBytes) }
  }

  close(): void {
    this.#inner.close()
  }

  #seal(key: string, bytes: Uint8Array): Buffer {
    const header = Buffer.concat([magic, this.#key.id, randomBytes(nonceBytes)])
    const cipher = createCipheriv('aes-256-gcm', this.#key.secret, header.subarray(-nonceBytes), { authTagLength: tagBytes })
    cipher.setAAD(Buffer.concat([header, Buffer.from(key)]))
    const sealed = cipher.update(bytes)
    return Buffer.concat([header, sealed, cipher.final(), cipher.getAuthTag()])
  }

  #open(key: string, bytes: Buffer): Buffer {
    if (bytes.length < overheadBytes || !bytes.subarray(0, magic.length).equals(magic)) throw damaged(key, 'is not encrypted, or cut short')
    const header = bytes.subarray(0, headerBytes)
    if (!header.subarray(magic.length, magic.length + keyIdBytes).equals(this.#key.id)) throw damaged(key, 'was encrypted with another key')
    const decipher = createDecipheriv('aes-256-gcm', this.#key.secret, header.subarray(-nonceBytes), { authTagLength: tagBytes })
    decipher.setAAD(Buffer.concat([header, Buffer.from(key)]))
    decipher.setAuthTag(bytes.subarray(-tagBytes))
    try {
      const opened = decipher.update(bytes.subarray(headerBytes, -tagBytes))
      const rest = decipher.final()
      return rest.length === 0 ? opened : Buffer.concat([opened, rest])
    } catch {
      throw damaged(key, 'is not what was written (its authentication fails)')
    }
  }
}

function damaged(key: string, what: string): MagsError {
  return new MagsError('workspace_damaged', `The object ${key} ${what}.`, { details: { object: key } })
}
