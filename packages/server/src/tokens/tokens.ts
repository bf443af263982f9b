import { createHash, randomBytes, randomUUID } from 'node:crypto'
import type { Logger } from 'pino'
import { timestamp } from '../state/timestamp.ts'
import type { TokenStore } from './store.ts'

/** Who a request comes from. */
export interface Identity {
  readonly tokenId: string
  readonly accountId: string
}

interface Known extends Identity {
  readonly verifiedAtMs: number
  touchedAtMs: number
}

/** One account until there are more. */
export const localAccount = 'local'

const secretPrefix = 'mags_'
const knownLimit = 1000
/** A token revoked by another process on the same database stops working within this. */
const knownForMs = 30_000
const touchEveryMs = 60_000

/**
 * Bearer tokens. A secret has 256 random bits and is stored as its SHA-256: looking a hash up by an index tells an attacker nothing about secrets, and
 * no slow hash is needed for one that cannot be guessed. Hashes verified lately are remembered, so that a request costs no SQL.
 */
export class Tokens {
  readonly #store: TokenStore
  readonly #clock: () => number
  readonly #logger: Logger
  readonly #known = new Map<string, Known>()
  readonly #accounts = new Set<string>()

  constructor(deps: { store: TokenStore; clock: () => number; logger: Logger }) {
    this.#store = deps.store
    this.#clock = deps.clock
    this.#logger = deps.logger
  }

  /** The accounts that have a token, as far as they were seen: all once `loadAccounts` has settled, but for those that another process makes and nobody has used. */
  get accounts(): ReadonlySet<string> {
    return this.#accounts
  }

  async loadAccounts(): Promise<void> {
    for (const account of await this.#store.accounts()) this.#accounts.add(account)
  }

  /** Makes a token; the returned secret is stored nowhere. */
  async create(name: string, accountId = localAccount): Promise<string> {
    const secret = `${secretPrefix}${base62(randomBytes(32))}`
    await this.#store.insert({
      id: randomUUID(),
      accountId,
      name,
      hash: hashOf(secret),
      prefix: secret.slice(0, secretPrefix.length + 6),
      createdAt: timestamp(this.#clock()),
    })
    this.#accounts.add(accountId)
    return secret
  }

  async verify(secret: string): Promise<Identity | undefined> {
    if (!/^mags_[0-9A-Za-z]{1,64}$/.test(secret)) return undefined
    const hash = hashOf(secret)
    const now = performance.now()
    let known = this.#known.get(hash)
    if (known === undefined || now - known.verifiedAtMs > knownForMs) {
      const found = await this.#store.findByHash(hash)
      this.#known.delete(hash)
      if (found === undefined) return undefined
      known = { tokenId: found.id, accountId: found.accountId, verifiedAtMs: now, touchedAtMs: known?.touchedAtMs ?? Number.NEGATIVE_INFINITY }
      if (this.#known.size >= knownLimit) this.#known.delete(this.#known.keys().next().value ?? '')
      this.#known.set(hash, known)
      this.#accounts.add(found.accountId)
    }
    if (now - known.touchedAtMs > touchEveryMs) {
      known.touchedAtMs = now
      this.#touch(known.tokenId)
    }
    return known
  }

  async revoke(id: string): Promise<boolean> {
    for (const [hash, known] of this.#known) if (known.tokenId === id) this.#known.delete(hash)
    return await this.#store.delete(id)
  }

  count(): Promise<number> {
    return this.#store.count()
  }

  #touch(id: string) {
    // After the answer, not before it.
    setImmediate(() => {
      this.#store
        .touch(id, timestamp(this.#clock()))
        .catch((error: unknown) => this.#logger.warn({ err: error }, 'the last use of a token could not be stored'))
    })
  }
}

const hashOf = (secret: string) => createHash('sha256').update(secret).digest('hex')

function base62(bytes: Uint8Array): string {
  const digits = '0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz'
  let value = BigInt(`0x${Buffer.from(bytes).toString('hex')}`)
  let text = ''
  for (let index = 0; index < 43; index++) {
    text = digits.charAt(Number(value % 62n)) + text
    value /= 62n
  }
  return text
}
