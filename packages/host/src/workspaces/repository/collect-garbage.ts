import { randomBytes } from 'node:crypto'
import type { BlobInfo, BlobStore } from '../blobs/blob-store.ts'
import { type CollectorState, type CondemnedPack, maxCondemned, readCollectorState, type StoredCollectorState, writeCollectorState } from './collector-state.ts'
import { encodeHead, type HeadVersion } from './head.ts'
import { inParallel } from './in-parallel.ts'
import { objectNames, parsePackKey, parseWorkspaceKey } from './object-names.ts'
import type { PackId } from './repository.ts'
import { decodeManifest } from './stored-manifest.ts'
import { type FoundHead, findHead, readVersion } from './version-objects.ts'

const leaseMs = 3_600_000
const abandonedCheckMs = 86_400_000
const parallelReads = 16
const deletedAtOnce = 500

export interface CollectionOptions {
  readonly graceMs: number
  readonly now: () => number
  /** Packs of versions read before, by the version's key; kept up to date. */
  readonly packsOfVersions: Map<string, readonly PackId[]>
}

interface Collected {
  readonly deletedPacks: number
  readonly freedBytes: number
}

const nothing: Collected = { deletedPacks: 0, freedBytes: 0 }

/**
 * One round. A copy of a pack goes in the second round that finds it unneeded, half of the grace time after the first; what the rounds tell each other and why nothing needed can go is in
 * docs/workspace-format.md, "Collection". Nothing is deleted unless every head and version can be read: rejects with MagsError('workspace_damaged') naming the one that cannot.
 */
export async function collectGarbage(store: BlobStore, options: CollectionOptions): Promise<Collected> {
  const before = await readCollectorState(store)
  if (before.state.lease && before.state.lease.expiresAtMs > options.now()) return nothing
  const lease = { holder: randomBytes(16).toString('hex'), expiresAtMs: options.now() + leaseMs }
  let held = await writeCollectorState(store, { ...before.state, lease }, before.condition)
  if (!held) return nothing
  try {
    const round = await planRound(store, held.state, options)
    const published = await writeCollectorState(store, { lease, condemned: round.condemned }, held.condition)
    if (!published) {
      // Paused beyond the lease: another collector goes on.
      held = undefined
      return nothing
    }
    held = published
    const deleted = round.doomed.map(({ key }) => key)
    for (const keys of inChunks(deleted)) await store.delete(keys)
    for (const keys of inChunks(round.abandoned)) await store.delete(keys)
    held = { ...held, state: { lease, condemned: confirm(round.condemned, new Set(deleted), options.now()) } }
    return { deletedPacks: deleted.length, freedBytes: round.doomed.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0) }
  } finally {
    if (held) await release(store, held)
  }
}

interface Round {
  readonly condemned: ReadonlyMap<string, CondemnedPack>
  readonly doomed: readonly BlobInfo[]
  /** Versions that no head names and left-over checks. */
  readonly abandoned: readonly string[]
}

/** Packs are listed before versions are read: a pack that comes later is none of this round's business. */
async function planRound(store: BlobStore, state: CollectorState, options: CollectionOptions): Promise<Round> {
  const listedAtMs = options.now()
  const isOlder = ({ modifiedAt }: BlobInfo, ageMs: number) => modifiedAt.getTime() <= listedAtMs - ageMs
  const packs: BlobInfo[] = []
  for await (const info of store.list(objectNames.packs)) packs.push(info)
  const abandoned: string[] = []
  for await (const info of store.list(objectNames.checks)) if (isOlder(info, abandonedCheckMs)) abandoned.push(info.key)
  const { needed, abandoned: versions } = await findNeeded(store, options, (info) => isOlder(info, options.graceMs))
  abandoned.push(...versions)

  const condemned = new Map<string, CondemnedPack>()
  const doomed: BlobInfo[] = []
  for (const info of packs) {
    const id = parsePackKey(info.key)?.id
    if (id === undefined) continue
    const known = state.condemned.get(info.key)
    const isNeeded = needed.has(id)
    if (known?.doomed || (known && !isNeeded && known.sinceMs !== null && known.sinceMs <= listedAtMs - options.graceMs / 2)) {
      condemned.set(info.key, { sinceMs: known.sinceMs, doomed: true })
      doomed.push(info)
    } else if (!isNeeded && (known || isOlder(info, options.graceMs)) && condemned.size < maxCondemned) {
      condemned.set(info.key, known ?? { sinceMs: null, doomed: false })
    }
  }
  return { condemned, doomed, abandoned }
}

/** Every pack some version needs. A version no head names counts, too: its commit may be on the way. Settles also with the keys of those that may go. */
async function findNeeded(
  store: BlobStore,
  { packsOfVersions }: CollectionOptions,
  isOld: (info: BlobInfo) => boolean,
): Promise<{ readonly needed: ReadonlySet<PackId>; readonly abandoned: readonly string[] }> {
  const workspaces = new Map<string, BlobInfo[]>()
  for await (const info of store.list(objectNames.workspaces)) {
    const parsed = parseWorkspaceKey(info.key)
    if (!parsed) continue
    const versions = workspaces.get(parsed.storageId) ?? []
    workspaces.set(parsed.storageId, versions)
    if (parsed.kind === 'version') versions.push(info)
  }
  const needed = new Set<PackId>()
  const abandoned: string[] = []
  const seen = new Map<string, readonly PackId[]>()
  const need = (key: string, packs: readonly PackId[]) => {
    seen.set(key, packs)
    for (const id of packs) needed.add(id)
  }
  await inParallel(workspaces, parallelReads, async ([storageId, listed]) => {
    const found = await findHead(store, storageId)
    const named = new Set(found?.head.versions.map(({ key }) => key))
    for (const version of found?.head.versions ?? []) {
      const packs = packsOfVersions.get(version.key) ?? (await packsOfNamed(store, storageId, version))
      if (packs) need(version.key, packs)
    }
    const unnamed = listed.filter(({ key }) => !named.has(key))
    for (const { key } of unnamed) need(key, packsOfVersions.get(key) ?? (await packsOfUnnamed(store, key)))
    const old = unnamed.filter(isOld).map(({ key }) => key)
    if (old.length > 0 && (!found || (await touchHead(store, found)))) abandoned.push(...old)
  })
  packsOfVersions.clear()
  for (const [key, packs] of seen) packsOfVersions.set(key, packs)
  return { needed, abandoned }
}

/** Undefined when the version was dropped since its head was read. */
async function packsOfNamed(store: BlobStore, storageId: string, version: HeadVersion): Promise<readonly PackId[] | undefined> {
  try {
    return (await readVersion(store, version)).manifest.packs
  } catch (error) {
    const now = await findHead(store, storageId)
    if (now?.head.versions.some(({ key }) => key === version.key)) throw error
    return undefined
  }
}

/** One that is gone or cannot be read can be no version of anything. */
async function packsOfUnnamed(store: BlobStore, key: string): Promise<readonly PackId[]> {
  const found = await store.get(key)
  if (!found) return []
  try {
    return (await decodeManifest(key, found.bytes)).manifest.packs
  } catch {
    return []
  }
}

/** A commit that was on the way since before can no longer name an object that is about to be deleted. False when the head has changed. */
async function touchHead(store: BlobStore, { head, etag }: FoundHead): Promise<boolean> {
  const bytes = await encodeHead({ ...head, touch: randomBytes(8).toString('hex') })
  return (await store.put(objectNames.head(head.storageId), bytes, { kind: 'unchanged', etag })) !== undefined
}

/** The list was in the store: from now on nobody begins to rely on what is on it. */
function confirm(condemned: ReadonlyMap<string, CondemnedPack>, deleted: ReadonlySet<string>, nowMs: number): ReadonlyMap<string, CondemnedPack> {
  const kept = [...condemned].filter(([key]) => !deleted.has(key))
  return new Map(kept.map(([key, pack]) => [key, { ...pack, sinceMs: pack.sinceMs ?? nowMs }]))
}

/** Not vital: a lease that stays ends by itself. */
async function release(store: BlobStore, held: StoredCollectorState): Promise<void> {
  await writeCollectorState(store, { ...held.state, lease: null }, held.condition).catch(() => undefined)
}

function* inChunks(keys: readonly string[]): Iterable<readonly string[]> {
  for (let from = 0; from < keys.length; from += deletedAtOnce) yield keys.slice(from, from + deletedAtOnce)
}
