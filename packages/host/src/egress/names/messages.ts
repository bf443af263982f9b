import type { DomainRules } from '../domain-rule.ts'

/** Between the daemon and its name forwarder: one JSON value per line, over the forwarder's standard input and output. */
export type ToForwarder =
  /** The names that a sandbox may ask for; absent: it has no policy of its own. Answered by `done`. */
  | { readonly kind: 'set'; readonly id: number; readonly address: string; readonly domains?: DomainRules }
  /** What sandboxes without a policy of their own may ask for; absent: nothing. */
  | { readonly kind: 'default'; readonly id: number; readonly domains?: DomainRules }
  /** The addresses that may be told; absent: the answer must not be given. */
  | { readonly kind: 'granted'; readonly id: number; readonly addresses?: readonly string[] }

export type FromForwarder =
  | { readonly kind: 'ready' }
  | { readonly kind: 'done'; readonly id: number }
  /** A name led to these addresses: they must be reachable before the sandbox hears of them. */
  | {
      readonly kind: 'grant'
      readonly id: number
      readonly address: string
      readonly name: string
      readonly addresses: readonly string[]
      readonly seconds: number
    }
  | { readonly kind: 'refused'; readonly address: string; readonly name: string }

/** Longest line; one who sends more is not what it should be. */
export const maxLineBytes = 128 * 1024

/** Cuts a stream into lines. Throws when one is too long. */
export class Lines {
  #rest = ''

  push(text: string): string[] {
    const parts = (this.#rest + text).split('\n')
    this.#rest = parts.pop() ?? ''
    if (this.#rest.length > maxLineBytes) throw new Error('a line is too long')
    return parts
  }
}
