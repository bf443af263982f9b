import { domainFault, subdomainFault } from '@mags/protocol'
import type { AliasLookup, AliasTarget } from './alias-lookup.ts'
import type { AliasStore } from './store.ts'

interface Known {
  readonly target: Promise<AliasTarget | undefined>
  readonly askedAtMs: number
}

/** A change by another server on the same database is seen within this. */
const knownForMs = 2000
const mostKnown = 10_000

/**
 * Answers from memory for a moment, also that there is no such alias: every request to a URL asks. Dropped whole when an alias changes here. Who asks for what is
 * being asked already waits for the same answer; one that was asked for before a change is not kept after it.
 */
export class KnownAliases implements AliasLookup {
  readonly #store: Pick<AliasStore, 'target'>
  /** Milliseconds that only go forward. */
  readonly #now: () => number
  #known = new Map<string, Known>()

  constructor(store: Pick<AliasStore, 'target'>, now: () => number = () => performance.now()) {
    this.#store = store
    this.#now = now
  }

  async find(label: string | undefined, host: string): Promise<AliasTarget | undefined> {
    // What cannot be an alias is not worth a question, nor a place in memory.
    if (label === undefined) return domainFault(host) === undefined ? await this.#ask(`d:${host}`, { domain: host }) : undefined
    return subdomainFault(label) === undefined ? await this.#ask(`s:${label}`, { subdomain: label }) : undefined
  }

  /** Forgets everything; called after every change. */
  drop(): void {
    this.#known = new Map()
  }

  #ask(key: string, by: { readonly subdomain: string } | { readonly domain: string }): Promise<AliasTarget | undefined> {
    const now = this.#now()
    const known = this.#known.get(key)
    if (known !== undefined && now - known.askedAtMs < knownForMs) return known.target
    const current = this.#known
    const target = this.#store.target(by)
    current.delete(key)
    if (current.size >= mostKnown) current.delete(current.keys().next().value ?? '')
    const entry = { target, askedAtMs: now }
    current.set(key, entry)
    target.catch(() => {
      if (current.get(key) === entry) current.delete(key)
    })
    return target
  }
}
