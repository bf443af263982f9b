import { type DomainRules, isAllowed, isDenied } from '../domain-rule.ts'
import { encodeBadCode, encodeCode, encodeResolution, grantSeconds, passAnswer, readResolution } from './answer.ts'
import { type Question, readQuestion, recordTypes, responseCodes } from './question.ts'

export interface NameDeskDeps {
  /** The resolver's whole answer; rejects when there is none. */
  readonly ask: (question: Question) => Promise<Buffer>
  /** Makes addresses reachable for a sandbox and says which it may know; undefined when none can be. */
  readonly grant: (address: string, name: string, addresses: readonly string[], seconds: number) => Promise<readonly string[] | undefined>
  /** At most 64 times a minute for each sandbox. */
  readonly onRefused: (address: string, name: string) => void
  /** Default `performance.now`. */
  readonly now?: () => number
}

const mostPerSandbox = 32
const mostInAll = 1024
const toldPerMinute = 64
const minuteMs = 60_000

/**
 * Decides about each question of a sandbox: names that its policy has not are refused; what an allowed name leads to is made reachable first and told then.
 * A sandbox without rules, or with more than 32 questions open, gets nothing.
 */
export class NameDesk {
  readonly #deps: NameDeskDeps
  readonly #rules = new Map<string, DomainRules>()
  readonly #open = new Map<string, number>()
  readonly #told = new Map<string, { readonly sinceMs: number; count: number }>()
  readonly #now: () => number
  #openInAll = 0
  #default: DomainRules | undefined

  constructor(deps: NameDeskDeps) {
    this.#deps = deps
    this.#now = deps.now ?? (() => performance.now())
  }

  set(address: string, domains: DomainRules | undefined) {
    if (domains === undefined) this.#rules.delete(address)
    else this.#rules.set(address, domains)
  }

  setDefault(domains: DomainRules | undefined) {
    this.#default = domains
  }

  /** Undefined: no answer at all. Never rejects, whatever the packet is. */
  async answer(packet: Buffer, address: string, transport: 'udp' | 'tcp'): Promise<Buffer | undefined> {
    const open = this.#open.get(address) ?? 0
    if (open >= mostPerSandbox || this.#openInAll >= mostInAll) return undefined
    this.#open.set(address, open + 1)
    this.#openInAll += 1
    try {
      return await this.#answer(packet, address, transport)
    } catch {
      return undefined
    } finally {
      const left = (this.#open.get(address) ?? 1) - 1
      if (left === 0) this.#open.delete(address)
      else this.#open.set(address, left)
      this.#openInAll -= 1
    }
  }

  async #answer(packet: Buffer, address: string, transport: 'udp' | 'tcp'): Promise<Buffer | undefined> {
    const question = readQuestion(packet)
    if ('code' in question) return question.code === 'drop' ? undefined : encodeBadCode(question.id, question.code)
    const rules = this.#rules.get(address) ?? this.#default
    if (rules === undefined) return encodeCode(question, responseCodes.refused)
    const refuse = (name: string) => {
      this.#tellRefused(address, name)
      return encodeCode(question, responseCodes.refused)
    }
    if (!isAllowed(rules, question.name)) return refuse(question.name)
    // Sandboxes have no IPv6, and without an address programs do not try it first.
    if (question.type === recordTypes.aaaa) return encodeCode(question, responseCodes.ok)
    const answer = await this.#resolve(question, address, rules, refuse).catch(() => encodeCode(question, responseCodes.failed))
    return transport === 'udp' && answer.length > question.maxBytes ? encodeCode(question, responseCodes.ok, true) : answer
  }

  async #resolve(question: Question, address: string, rules: DomainRules, refuse: (name: string) => Buffer): Promise<Buffer> {
    const found = await this.#deps.ask(question)
    if (question.type !== recordTypes.a) return passAnswer(question, found)
    const resolution = readResolution(found, question.name)
    if (resolution.code !== responseCodes.ok) return encodeCode(question, resolution.code)
    const denied = resolution.aliases.find(({ target }) => isDenied(rules, target))
    if (denied !== undefined) return refuse(denied.target)
    if (resolution.addresses.length === 0 || rules.allow === undefined) return encodeResolution(question, resolution, resolution.addresses)
    const granted = await this.#deps.grant(address, question.name, resolution.addresses, grantSeconds(resolution.ttlSeconds))
    return granted === undefined ? encodeCode(question, responseCodes.failed) : encodeResolution(question, resolution, granted)
  }

  #tellRefused(address: string, name: string) {
    const nowMs = this.#now()
    const last = this.#told.get(address)
    const told = last !== undefined && nowMs - last.sinceMs < minuteMs ? last : { sinceMs: nowMs, count: 0 }
    this.#told.set(address, told)
    if (told.count >= toldPerMinute) return
    told.count += 1
    this.#deps.onRefused(address, name)
  }
}
