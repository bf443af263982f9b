import { hash } from 'node:crypto'

/** Grows when the same instructions come to mean something else. */
const format = 1

/** What a stage begins with. Accounts never share what they built, and neither do kinds of sandbox. */
export function firstKey(accountId: string, wall: 'vm' | 'container', imageDigest: string): string {
  return digestOf(['mags build', format, accountId, wall, imageDigest])
}

/** The files after one more instruction: `what` is all that its work depends on besides the files before it. Only a digest of it goes anywhere. */
export function nextKey(before: string, what: unknown): string {
  return digestOf([before, what])
}

/** Variables, which mean the same in any order. */
export function sortedEntries(variables: Readonly<Record<string, string>>): [string, string][] {
  return Object.entries(variables).sort(([a], [b]) => (a < b ? -1 : 1))
}

const digestOf = (value: unknown) => hash('sha256', JSON.stringify(value), 'hex')
