import type { WorkspaceVersion } from '@mags/protocol'

/** SHA-256 of a pack's plain bytes, 64 hex digits. */
export type PackId = string

/** Where blocks of files and trees lie. Packs are immutable; the same bytes are stored once. */
export interface PackStore {
  /** Durable once settled; costs nothing when the pack is there already. `uploadedBytes` is what went over the wire. */
  put(bytes: Uint8Array): Promise<{ readonly id: PackId; readonly uploadedBytes: number }>
  /** Verified against its id; rejects with MagsError('workspace_damaged') naming the pack when it is missing or not what it should be. */
  get(id: PackId, abort?: AbortSignal): Promise<Buffer>
}

/** Root of one version's tree: small, stored as an object of its own. Everything else is in packs. */
export interface Manifest {
  /** Digest and name of the image under the workspace. */
  readonly image: { readonly name: string; readonly digest: string }
  /** Logical bytes of all files, and how many paths. */
  readonly sizeBytes: number
  readonly entryCount: number
  /** Segments of the tree, in tree order; see docs/workspace-format.md. */
  readonly segments: readonly {
    readonly pack: PackId
    readonly offset: number
    readonly lengthBytes: number
    readonly rawBytes: number
    readonly sha256: string
  }[]
  /** Every pack this version needs, sorted. */
  readonly packs: readonly PackId[]
}

/** The right to commit: held by one at a time, the one with the highest fence. */
export interface WorkspaceClaim {
  readonly storageId: string
  readonly fence: number
  /** Newest version; 0 for a workspace that was never saved. */
  readonly version: number
}

export interface CommitReason {
  readonly reason: WorkspaceVersion['reason']
  readonly uploadedBytes: number
}

/**
 * Versions of workspaces in an object store.
 *
 * A *fence* is a number that grows with every holder of a workspace (the server gives it out). `claim` writes it into the workspace's head by compare-and-swap, `commit` swaps again: a holder that was
 * paused or cut off and comes back finds another fence there and is refused, whatever it does and in whatever order.
 */
export interface WorkspaceRepository {
  readonly packs: PackStore
  /** Rejects with MagsError('workspace_fenced') when the head has this fence or a higher one. */
  claim(storageId: string, fence: number): Promise<WorkspaceClaim>
  /** Durable once settled. Rejects with MagsError('workspace_fenced') when another holder has claimed it meanwhile. */
  commit(claim: WorkspaceClaim, manifest: Manifest, why: CommitReason): Promise<{ readonly claim: WorkspaceClaim; readonly version: WorkspaceVersion }>
  /** The newest when no version is named. Rejects with MagsError('not_found') for a version or workspace that is not there, 'workspace_damaged' when it cannot be read. */
  manifest(storageId: string, version?: number): Promise<{ readonly manifest: Manifest; readonly version: WorkspaceVersion }>
  /** Newest first; empty for a workspace that was never saved. */
  versions(storageId: string): Promise<readonly WorkspaceVersion[]>
  /** Takes the workspace's objects away; packs go with the next collection. No error when there is none. */
  remove(storageId: string): Promise<void>
  /**
   * Deletes packs that no version needs. Safe beside writers and other collectors on any machine: a pack younger than the grace time is left alone, one that is not needed is put on a list that
   * writers look at, and goes in a later collection, at least half of the grace time after. Rejects with MagsError('workspace_damaged') when a head or version cannot be read, and deletes nothing.
   */
  collectGarbage(): Promise<{ readonly deletedPacks: number; readonly freedBytes: number }>
}
