import { hash, randomBytes } from 'node:crypto'
import { MagsError, type WorkspaceVersion } from '@mags/protocol'
import type { BlobStore, PutCondition } from '../blobs/blob-store.ts'
import { collectGarbage } from './collect-garbage.ts'
import { encodeHead, type Head, type HeadVersion, newestOf } from './head.ts'
import { objectNames, parseWorkspaceKey } from './object-names.ts'
import { ObjectPackStore } from './object-pack-store.ts'
import type { CommitReason, Manifest, PackId, WorkspaceClaim, WorkspaceRepository } from './repository.ts'
import { damagedObject } from './stored-document.ts'
import { encodeManifest } from './stored-manifest.ts'
import { type FoundHead, findHead, readVersion } from './version-objects.ts'

const keptVersions = 200
const maxAttempts = 10
const maxRemembered = 1000

export interface RepositoryOptions {
  /** How long what is not needed is left alone; a save must not take longer than a quarter of it. Default 6 hours. */
  readonly graceMs?: number
  /** Milliseconds since 1970. */
  readonly now?: () => number
}

/**
 * Versions of workspaces as objects: `head` of a workspace names its versions, each an object that names packs. A version is there once the head names it; whatever else a crash leaves is taken away
 * by the collection. The layout, and why it is safe, is in docs/workspace-format.md.
 */
export class ObjectWorkspaceRepository implements WorkspaceRepository {
  readonly packs: ObjectPackStore
  readonly #store: BlobStore
  readonly #graceMs: number
  readonly #now: () => number
  /** Heads as this process wrote them last: a save then begins without reading. Only a guess, the swap decides. */
  readonly #heads = new Map<string, FoundHead>()
  /** Packs of the newest versions this process read or wrote, by the version's key. */
  readonly #newest = new Map<string, readonly PackId[]>()
  /** Claims nobody knows the outcome of, by workspace and fence. */
  readonly #openClaims = new Map<string, string>()
  readonly #packsOfVersions = new Map<string, readonly PackId[]>()
  #collection: ReturnType<WorkspaceRepository['collectGarbage']> | undefined

  constructor(store: BlobStore, options: RepositoryOptions = {}) {
    this.#store = store
    this.#graceMs = options.graceMs ?? 6 * 3_600_000
    this.#now = options.now ?? Date.now
    this.packs = new ObjectPackStore(store, { graceMs: this.#graceMs, now: this.#now })
  }

  async claim(storageId: string, fence: number): Promise<WorkspaceClaim> {
    if (!Number.isSafeInteger(fence) || fence < 1) throw new MagsError('internal', `${fence} is no fence.`)
    const name = `${storageId}/${fence}`
    const holder = this.#openClaims.get(name) ?? randomBytes(16).toString('hex')
    remember(this.#openClaims, name, holder)
    for (let attempt = 1; attempt <= maxAttempts; attempt++) {
      const found = await findHead(this.#store, storageId)
      const isOurs = found?.head.fence === fence && found.head.holder === holder
      if (found && found.head.fence >= fence && !isOurs) throw fenced(storageId, fence, found.head.fence)
      const claimed = isOurs
        ? found
        : await this.#swapHead({ storageId, fence, holder, touch: found?.head.touch ?? '0'.repeat(16), versions: found?.head.versions ?? [] }, found)
      if (!claimed) continue
      this.#openClaims.delete(name)
      remember(this.#heads, storageId, claimed)
      return { storageId, fence, version: newestOf(claimed.head) }
    }
    throw busy(storageId)
  }

  async commit(claim: WorkspaceClaim, manifest: Manifest, why: CommitReason): Promise<{ readonly claim: WorkspaceClaim; readonly version: WorkspaceVersion }> {
    const { storageId, fence } = claim
    const written = new Map<string, string>()
    for (let attempt = 1; attempt <= maxAttempts; attempt++) {
      const guess = attempt === 1 ? this.#heads.get(storageId) : undefined
      const found = guess?.head.fence === fence ? guess : await findHead(this.#store, storageId)
      if (!found) throw new MagsError('workspace_fenced', `The workspace ${storageId} was removed from the object store.`)
      this.#checkHolder(claim, found.head)
      const last = found.head.versions.at(-1)
      // An earlier commit of ours whose answer was lost; if it was of the same, it is this one.
      if (last && last.version > claim.version && (await this.#isSame(last, manifest))) return this.#committed(claim, found, last)

      const securedAtMs = await this.#secureNew(manifest, last)
      const bytes = await encodeManifest({ manifest, copies: this.packs.copiesOf(manifest.packs) })
      const version: HeadVersion = {
        version: (last?.version ?? 0) + 1,
        key: objectNames.newVersion(storageId, (last?.version ?? 0) + 1, fence),
        sha256: hash('sha256', bytes, 'hex'),
        fence,
        createdAt: new Date(this.#now()).toISOString(),
        reason: why.reason,
        sizeBytes: manifest.sizeBytes,
        entryCount: manifest.entryCount,
        uploadedBytes: why.uploadedBytes,
        image: { name: manifest.image.name, digest: manifest.image.digest },
      }
      await this.#store.put(version.key, bytes, { kind: 'absent' })
      written.set(version.key, version.sha256)
      // Whoever was asleep here for hours looks at the packs again. From here on the version's object keeps them, named or not.
      if (this.#now() - securedAtMs > this.#graceMs / 3) continue
      const versions = [...found.head.versions, version]
      const swapped = await this.#swapHead({ ...found.head, versions: versions.slice(-keptVersions) }, found)
      if (!swapped) {
        this.#heads.delete(storageId)
        continue
      }
      remember(this.#newest, version.key, manifest.packs)
      const dropped = versions.slice(0, -keptVersions).map(({ key }) => key)
      // What is not deleted here goes with the next collection.
      const unused = [...written.keys()].filter((key) => key !== version.key)
      if (dropped.length + unused.length > 0) await this.#store.delete([...dropped, ...unused]).catch(() => undefined)
      return this.#committed(claim, swapped, version)
    }
    throw busy(storageId)
  }

  async manifest(storageId: string, version?: number): Promise<{ readonly manifest: Manifest; readonly version: WorkspaceVersion }> {
    for (let attempt = 1; ; attempt++) {
      // In this order: what the head names now was not deleted before, see ObjectPackStore.learn.
      const condemned = await this.packs.condemned()
      const found = await findHead(this.#store, storageId)
      const wanted = version === undefined ? found?.head.versions.at(-1) : found?.head.versions.find((candidate) => candidate.version === version)
      if (!wanted)
        throw new MagsError(
          'not_found',
          version === undefined ? `The workspace ${storageId} has no saved version.` : `The workspace ${storageId} has no version ${version}.`,
        )
      try {
        const { manifest, copies } = await readVersion(this.#store, wanted)
        this.packs.learn(manifest.packs, copies, condemned)
        remember(this.#newest, wanted.key, manifest.packs)
        return { manifest, version: shown(wanted) }
      } catch (error) {
        // Old versions go when there are too many: perhaps just now.
        const again = attempt === 1 && (await findHead(this.#store, storageId))
        if (again === false || again?.head.versions.some(({ key }) => key === wanted.key)) throw error
      }
    }
  }

  async versions(storageId: string): Promise<readonly WorkspaceVersion[]> {
    const found = await findHead(this.#store, storageId)
    return (found?.head.versions ?? []).map(shown).reverse()
  }

  /** The head goes before its versions: without it they are nobody's, whatever happens in between. What is written after the listing is the collection's. */
  async remove(storageId: string): Promise<void> {
    this.#heads.delete(storageId)
    const versions: string[] = []
    for await (const { key } of this.#store.list(objectNames.workspace(storageId))) if (parseWorkspaceKey(key)?.kind === 'version') versions.push(key)
    await this.#store.delete([objectNames.head(storageId)])
    await this.#store.delete(versions)
  }

  collectGarbage(): ReturnType<WorkspaceRepository['collectGarbage']> {
    this.#collection ??= collectGarbage(this.#store, { graceMs: this.#graceMs, now: this.#now, packsOfVersions: this.#packsOfVersions }).finally(() => {
      this.#collection = undefined
    })
    return this.#collection
  }

  #checkHolder(claim: WorkspaceClaim, head: Head): void {
    if (head.fence > claim.fence) throw fenced(claim.storageId, claim.fence, head.fence)
    if (head.fence < claim.fence || newestOf(head) < claim.version)
      throw damagedObject(
        objectNames.head(claim.storageId),
        `it is older than what was read from it before (fence ${head.fence}, version ${newestOf(head)}; expected ${claim.fence}, ${claim.version}); was the object store restored from a copy?`,
      )
  }

  async #isSame(version: HeadVersion, manifest: Manifest): Promise<boolean> {
    const stored = await this.#readable(version)
    return stored !== undefined && JSON.stringify(canonical(stored)) === JSON.stringify(canonical(manifest))
  }

  /** Packs the workspace's newest version does not have already; those it has stay as long as it is named. */
  async #secureNew(manifest: Manifest, last: HeadVersion | undefined): Promise<number> {
    const inherited = new Set(last && (this.#newest.get(last.key) ?? (await this.#readable(last))?.packs))
    return this.packs.secure(manifest.packs.filter((id) => !inherited.has(id)))
  }

  /** A damaged version is no reason not to save the next one. */
  async #readable(version: HeadVersion): Promise<Manifest | undefined> {
    try {
      return (await readVersion(this.#store, version)).manifest
    } catch (error) {
      if (error instanceof MagsError && error.code === 'workspace_damaged') return undefined
      throw error
    }
  }

  #committed(claim: WorkspaceClaim, found: FoundHead, version: HeadVersion) {
    remember(this.#heads, claim.storageId, found)
    return { claim: { ...claim, version: version.version }, version: shown(version) }
  }

  /** Undefined when somebody else wrote it meanwhile. A swap whose answer was lost is looked at. */
  async #swapHead(head: Head, before: FoundHead | undefined): Promise<FoundHead | undefined> {
    const key = objectNames.head(head.storageId)
    const bytes = await encodeHead(head)
    const condition: PutCondition = before ? { kind: 'unchanged', etag: before.etag } : { kind: 'absent' }
    try {
      const put = await this.#store.put(key, bytes, condition)
      return put && { head, etag: put.etag }
    } catch (error) {
      const now = await this.#store.get(key).catch(() => undefined)
      this.#heads.delete(head.storageId)
      if (!now?.bytes.equals(bytes)) throw error
      return { head, etag: now.etag }
    }
  }
}

function shown({ version, createdAt, reason, sizeBytes, entryCount, uploadedBytes, image }: HeadVersion): WorkspaceVersion {
  return { version, createdAt, reason, sizeBytes, entryCount, uploadedBytes, image }
}

function canonical({ image, sizeBytes, entryCount, packs, segments }: Manifest): unknown {
  return [
    image.name,
    image.digest,
    sizeBytes,
    entryCount,
    packs,
    segments.map((segment) => [segment.pack, segment.offset, segment.lengthBytes, segment.rawBytes, segment.sha256]),
  ]
}

function fenced(storageId: string, ours: number, theirs: number): MagsError {
  return new MagsError(
    'workspace_fenced',
    `The workspace ${storageId} was taken over by another holder (fence ${theirs}, this one has ${ours}). What was not saved before stays on this machine.`,
  )
}

function busy(storageId: string): MagsError {
  return new MagsError('object_store_unavailable', `The head of workspace ${storageId} changes all the time; try again.`)
}

/** Puts an entry last; the oldest go when there are too many. */
function remember<V>(entries: Map<string, V>, key: string, value: V): void {
  entries.delete(key)
  entries.set(key, value)
  for (const oldest of entries.keys()) {
    if (entries.size <= maxRemembered) break
    entries.delete(oldest)
  }
}
