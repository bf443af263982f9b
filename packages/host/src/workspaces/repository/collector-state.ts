import type { BlobStore, PutCondition } from '../blobs/blob-store.ts'
import { objectNames, parsePackKey } from './object-names.ts'
import { type DocumentKind, decodeDocument, encodeDocument } from './stored-document.ts'
import type { StoredFields } from './stored-fields.ts'

/**
 * A copy of a pack that no version was found to need. States:
 *
 *     found (since null) ──the list with it is in the store──▶ condemned since ──half the grace time, still unneeded──▶ doomed ──▶ deleted
 *
 * Up to `condemned` a version that turns out to need it takes it off the list; a doomed one is never relied on again by anybody.
 */
export interface CondemnedPack {
  /** Milliseconds since 1970; null until the list with it is known to be in the store. */
  readonly sinceMs: number | null
  readonly doomed: boolean
}

/** What collectors tell each other and writers. */
export interface CollectorState {
  readonly lease: { readonly holder: string; readonly expiresAtMs: number } | null
  /** By key. */
  readonly condemned: ReadonlyMap<string, CondemnedPack>
}

export interface StoredCollectorState {
  readonly state: CollectorState
  /** For replacing exactly this one. */
  readonly condition: PutCondition
}

export const maxCondemned = 200_000
const kind: DocumentKind = { name: 'collector', maxBytes: 40 << 20 }
const format = 1

export async function readCollectorState(store: BlobStore): Promise<StoredCollectorState> {
  const found = await store.get(objectNames.collector)
  if (!found) return { state: { lease: null, condemned: new Map() }, condition: { kind: 'absent' } }
  return { state: await decodeDocument(kind, objectNames.collector, found.bytes, { 1: readState }), condition: { kind: 'unchanged', etag: found.etag } }
}

/** Undefined when another collector was there meanwhile. */
export async function writeCollectorState(store: BlobStore, state: CollectorState, condition: PutCondition): Promise<StoredCollectorState | undefined> {
  const lease = state.lease && { holder: state.lease.holder, expires_at_ms: state.lease.expiresAtMs }
  const condemned = [...state.condemned].map(([key, { sinceMs, doomed }]) => [key, sinceMs, doomed])
  const put = await store.put(objectNames.collector, await encodeDocument(kind, format, { lease, condemned }), condition)
  return put && { state, condition: { kind: 'unchanged', etag: put.etag } }
}

function readState(fields: StoredFields): CollectorState {
  fields.only('kind', 'format', 'lease', 'condemned')
  const condemned = new Map<string, CondemnedPack>()
  for (const [index, entry] of fields.list('condemned', maxCondemned).entries()) {
    const [key, sinceMs, doomed] = Array.isArray(entry) && entry.length === 3 ? (entry as unknown[]) : []
    const isTime = sinceMs === null || (Number.isSafeInteger(sinceMs) && (sinceMs as number) >= 0)
    if (typeof key !== 'string' || !parsePackKey(key) || !isTime || typeof doomed !== 'boolean') throw new Error(`condemned[${index}] is not as it should be`)
    condemned.set(key, { sinceMs: sinceMs as number | null, doomed })
  }
  if (fields.isNull('lease')) return { lease: null, condemned }
  const lease = fields.fields('lease').only('holder', 'expires_at_ms')
  return { lease: { holder: lease.text('holder', /^[0-9a-f]{32}$/), expiresAtMs: lease.integer('expires_at_ms') }, condemned }
}
