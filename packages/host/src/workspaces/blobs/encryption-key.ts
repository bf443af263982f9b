import { createHash, createHmac } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import { MagsError } from '@mags/protocol'

/** An AES-256 key and what may be known of it. */
export interface EncryptionKey {
  readonly secret: Buffer
  /** 8 bytes in every object's header, to tell a wrong key from a damaged object. */
  readonly id: Buffer
  /** 64 hex digits in the store's `format` object. */
  readonly checkValue: string
}

/** From 32 bytes, as they are, as 64 hex digits or as 44 characters of base64. Rejects with MagsError('object_store_refused'). */
export async function readEncryptionKey(path: string): Promise<EncryptionKey> {
  const contents = await readFile(path).catch((error: Error) => {
    throw new MagsError('object_store_refused', `The encryption key cannot be read: ${error.message}. Check MAGS_ENCRYPTION_KEY_FILE.`, { cause: error })
  })
  const secret = parseKey(contents)
  if (!secret)
    throw new MagsError(
      'object_store_refused',
      `${path} holds no encryption key: 32 bytes, 64 hex digits or 44 characters of base64. One is made with: openssl rand -hex 32`,
    )
  return encryptionKey(secret)
}

export function encryptionKey(secret: Buffer): EncryptionKey {
  return {
    secret,
    id: createHash('sha256').update('mags object store key id\0').update(secret).digest().subarray(0, 8),
    checkValue: createHmac('sha256', secret).update('mags object store key check').digest('hex'),
  }
}

function parseKey(contents: Buffer): Buffer | undefined {
  if (contents.length === 32) return contents
  if (contents.length > 200) return undefined
  const text = contents.toString('latin1').trim()
  if (/^[0-9a-fA-F]{64}$/.test(text)) return Buffer.from(text, 'hex')
  if (/^[A-Za-z0-9+/]{43}=$/.test(text)) return Buffer.from(text, 'base64')
  return undefined
}
