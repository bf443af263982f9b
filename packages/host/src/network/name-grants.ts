import type { DomainRules } from '../egress/domain-rule.ts'
import { isAllowed } from '../egress/domain-rule.ts'
import type { NameGrant } from './slot-egress-rules.ts'

interface HeldGrant {
  readonly name: string
  readonly address: string
  readonly expiresAtMs: number
}

/** At most this many addresses through names at a time, of one sandbox. */
export const maxGrants = 4096

/** What names have opened for one policy, so that known answers cost no change of the rules and a new policy keeps what it allows, too. Times are those of `performance.now()`. */
export class NameGrants {
  readonly #held = new Map<string, HeldGrant>()
  readonly #limit: number

  constructor(limit = maxGrants) {
    this.#limit = limit
  }

  /** Those that have to go into the rules, as they end later than what is there. Undefined when there is no room. */
  add(grants: readonly NameGrant[], nowMs = performance.now()): NameGrant[] | undefined {
    const wanted = grants.filter((grant) => {
      const held = this.#held.get(keyOf(grant))
      return held === undefined || held.expiresAtMs < nowMs + grant.secondsLeft * 1000
    })
    if (this.#held.size + wanted.length > this.#limit) this.#forgetExpired(nowMs)
    if (this.#held.size + wanted.length > this.#limit) return undefined
    for (const grant of wanted) this.#held.set(keyOf(grant), { name: grant.name, address: grant.address, expiresAtMs: nowMs + grant.secondsLeft * 1000 })
    return wanted
  }

  /** Takes back what could not be put into the rules. */
  forget(grants: readonly NameGrant[]) {
    for (const grant of grants) this.#held.delete(keyOf(grant))
  }

  /** What still runs and these rules allow. */
  under(domains: DomainRules, nowMs = performance.now()): NameGrant[] {
    this.#forgetExpired(nowMs)
    return [...this.#held.values()]
      .filter(({ name }) => isAllowed(domains, name))
      .map(({ name, address, expiresAtMs }) => ({ name, address, secondsLeft: (expiresAtMs - nowMs) / 1000 }))
  }

  #forgetExpired(nowMs: number) {
    for (const [key, { expiresAtMs }] of this.#held) if (expiresAtMs <= nowMs) this.#held.delete(key)
  }
}

const keyOf = ({ name, address }: { name: string; address: string }) => `${name} ${address}`
