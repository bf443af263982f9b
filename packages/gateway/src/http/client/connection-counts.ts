import { isIPv6 } from 'node:net'

/** How many connections there are, in all and by address; an IPv6 network of /64 is one client. */
export class ConnectionCounts {
  readonly #max: number
  readonly #maxPerAddress: number
  readonly #byAddress = new Map<string, number>()
  #total = 0

  constructor(max: number, maxPerAddress: number) {
    this.#max = max
    this.#maxPerAddress = maxPerAddress
  }

  /** Undefined when there are too many, else how to take it back. `counted` is false for who speaks for many. */
  add(address: string, counted: boolean): (() => void) | undefined {
    const key = network(address)
    const here = this.#byAddress.get(key) ?? 0
    if (this.#total >= this.#max || (counted && here >= this.#maxPerAddress)) return undefined
    this.#total++
    this.#byAddress.set(key, here + 1)
    return () => {
      this.#total--
      const left = (this.#byAddress.get(key) ?? 1) - 1
      if (left > 0) this.#byAddress.set(key, left)
      else this.#byAddress.delete(key)
    }
  }
}

function network(address: string): string {
  if (!isIPv6(address)) return address
  const [head = '', tail] = address.split('::')
  const front = head === '' ? [] : head.split(':')
  const back = tail === undefined || tail === '' ? [] : tail.split(':')
  const groups = tail === undefined ? front : [...front, ...Array<string>(Math.max(0, 8 - front.length - back.length)).fill('0'), ...back]
  return groups.slice(0, 4).join(':')
}
