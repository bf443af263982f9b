import { createCipheriv, createDecipheriv, randomBytes } from 'node:crypto'
import { link, open, readFile, unlink } from 'node:fs/promises'
import { MagsError } from '@mags/protocol'

const keyBytes = 32
const nonceBytes = 12
const tagBytes = 16
const version = 'v1:'

/** Seals what must not be readable in the database: AES-256-GCM (NIST SP 800-38D) with a key that is in a file of its own. */
export class SecretKey {
  readonly #key: Buffer

  constructor(key: Buffer) {
    this.#key = key
  }

  /** `owner` is whose secret it is; it is part of what is checked, so that a sealed text cannot be moved to another row. */
  seal(text: string, owner: string): string {
    const nonce = randomBytes(nonceBytes)
    const cipher = createCipheriv('aes-256-gcm', this.#key, nonce).setAAD(Buffer.from(owner))
    const sealed = Buffer.concat([nonce, cipher.update(text, 'utf8'), cipher.final(), cipher.getAuthTag()])
    return version + sealed.toString('base64')
  }

  /** Throws MagsError('internal') when it was sealed with another key, or for another owner. */
  open(sealed: string, owner: string): string {
    const bytes = Buffer.from(sealed.slice(version.length), 'base64')
    try {
      if (!sealed.startsWith(version) || bytes.length < nonceBytes + tagBytes) throw new Error('not a sealed text')
      const decipher = createDecipheriv('aes-256-gcm', this.#key, bytes.subarray(0, nonceBytes))
      decipher.setAAD(Buffer.from(owner)).setAuthTag(bytes.subarray(-tagBytes))
      return Buffer.concat([decipher.update(bytes.subarray(nonceBytes, -tagBytes)), decipher.final()]).toString('utf8')
    } catch (error) {
      throw new MagsError('internal', 'a stored secret cannot be read with the key file of this server; was the file replaced?', { cause: error })
    }
  }
}

/** The key of this server, from 64 hex digits in a file that only its user can read; made when there is none. Rejects with MagsError('internal') naming the file. */
export async function readSecretKey(path: string): Promise<SecretKey> {
  try {
    const text = await readFile(path, 'latin1').catch(async (error: NodeJS.ErrnoException) => {
      if (error.code !== 'ENOENT') throw error
      await writeNewKey(path)
      return await readFile(path, 'latin1')
    })
    const hex = text.trim()
    if (!/^[0-9a-f]{64}$/.test(hex)) throw new Error('it does not hold 64 hex digits')
    return new SecretKey(Buffer.from(hex, 'hex'))
  } catch (error) {
    throw new MagsError('internal', `the key file ${path} cannot be used: ${(error as Error).message}`, { cause: error })
  }
}

/** Whole or not at all, and never over another one. */
async function writeNewKey(path: string): Promise<void> {
  const draft = `${path}.${randomBytes(6).toString('hex')}`
  await using file = await open(draft, 'wx', 0o600)
  try {
    await file.writeFile(`${randomBytes(keyBytes).toString('hex')}\n`)
    await file.sync()
    await link(draft, path).catch((error: NodeJS.ErrnoException) => {
      if (error.code !== 'EEXIST') throw error
    })
  } finally {
    await unlink(draft)
  }
}
