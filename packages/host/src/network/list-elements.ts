import { runAnyInNamespace } from './namespace.ts'

/** One element of a set or map as `nft -j` shows it (libnftables-json(5)), with what hangs on it. */
export interface ListedElement {
  /** The parts of a concatenation, or the one value. */
  readonly key: readonly (string | number)[]
  /** What a map has for it. */
  readonly value?: unknown
  readonly expiresSeconds?: number
  readonly bytes?: number
}

const maxOutputBytes = 32 * 2 ** 20

/** The elements of a set or map of the router's table; none when it does not exist (a router of an earlier version). */
export async function listElements(router: string, kind: 'set' | 'map', name: string): Promise<ListedElement[]> {
  const listed = await runAnyInNamespace(router, 'nft', listArguments(kind, name), { maxOutputBytes, background: true })
  return listed.code === 0 ? readElements(listed.stdout) : []
}

export const listArguments = (kind: 'set' | 'map', name: string) => ['-j', 'list', kind, 'inet', 'mags', name]

/** What `nft` printed. */
export function readElements(json: string): ListedElement[] {
  const { nftables } = JSON.parse(json) as { nftables: { set?: { elem?: unknown[] }; map?: { elem?: unknown[] } }[] }
  return nftables.flatMap(({ set, map }) => [
    ...(set?.elem ?? []).flatMap((each) => readElement(each, 'set')),
    ...(map?.elem ?? []).flatMap((each) => readElement(each, 'map')),
  ])
}

function readElement(element: unknown, kind: 'set' | 'map'): ListedElement[] {
  if (kind === 'map') return Array.isArray(element) ? [{ key: readKey(element[0]), value: element[1] }] : []
  if (typeof element !== 'object' || element === null || !('elem' in element)) return [{ key: readKey(element) }]
  const { val, expires, counter } = element.elem as { val: unknown; expires?: number; counter?: { bytes?: number } }
  return [
    { key: readKey(val), ...(expires === undefined ? {} : { expiresSeconds: expires }), ...(counter?.bytes === undefined ? {} : { bytes: counter.bytes }) },
  ]
}

function readKey(value: unknown): (string | number)[] {
  const parts = typeof value === 'object' && value !== null && 'concat' in value && Array.isArray(value.concat) ? value.concat : [value]
  return parts.filter((part) => typeof part === 'string' || typeof part === 'number')
}
