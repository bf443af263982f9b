import {
  type HostWorkspaces,
  MagsError,
  type SandboxSpec,
  type WorkspaceDiff,
  type WorkspaceDifference,
  type WorkspaceHold,
  type WorkspaceSaved,
  type WorkspaceSource,
  type WorkspaceVersion,
} from '@mags/protocol'
import type { FakeFile, FakeFiles } from './fake-files.ts'

type Tree = ReadonlyMap<string, FakeFile>

interface Stored {
  /** The highest that was ever seen. */
  fence: number
  /** Oldest first. */
  readonly versions: { readonly info: WorkspaceVersion; readonly tree: Tree }[]
  /** Changes of this machine that are not saved. */
  local: Tree | undefined
}

const image = { name: 'debian-12', digest: 'sha256:d12' }

/** Workspaces in memory, with the fences and the "left behind" of the real ones. Tests break it through `fault`, `faults` and `beforeSave`. */
export class FakeWorkspaces implements HostWorkspaces {
  /** What everything rejects with that needs the object store, while it is set. */
  fault: MagsError | undefined
  /** What the next of them reject with, one each. */
  readonly faults: MagsError[] = []
  /** Awaited by every save; may throw. */
  beforeSave: (storageId: string) => Promise<void> | void = () => undefined
  /** Whether what is not saved outlives its sandbox. */
  keepsUnsaved = true
  /** Saves that worked, and attempts of all kinds. */
  saves = 0
  attempts = 0
  readonly removed: string[] = []
  readonly #stored = new Map<string, Stored>()

  /** What a sandbox starts from. */
  open(spec: SandboxSpec): Tree {
    if (spec.workspace) {
      this.claim(spec.workspace)
      const { local } = this.#of(spec.workspace.storageId)
      if (local && !spec.base) return local
    }
    if (spec.base) return this.#treeOf(spec.base)
    return spec.workspace ? (this.#of(spec.workspace.storageId).versions.at(-1)?.tree ?? new Map()) : new Map()
  }

  claim({ storageId, fence }: WorkspaceHold): void {
    const stored = this.#of(storageId)
    if (fence <= stored.fence) throw new MagsError('workspace_fenced', `the workspace is held with fence ${stored.fence}, and this one is ${fence}`)
    stored.fence = fence
  }

  async save(hold: WorkspaceHold, files: FakeFiles): Promise<WorkspaceSaved> {
    this.attempts++
    await this.beforeSave(hold.storageId)
    return this.#commit(hold, new Map(files.tree), 'sync')
  }

  /** The sandbox is gone with changes that were not saved. */
  leave({ storageId }: WorkspaceHold, files: FakeFiles): void {
    if (!this.keepsUnsaved) return
    const stored = this.#of(storageId)
    stored.local = same(stored.versions.at(-1)?.tree ?? new Map(), files.tree) ? undefined : new Map(files.tree)
  }

  async versions(storageId: string): Promise<readonly WorkspaceVersion[]> {
    this.#check()
    return (this.#stored.get(storageId)?.versions ?? []).map(({ info }) => info).reverse()
  }

  async fork(from: WorkspaceSource, to: WorkspaceHold): Promise<WorkspaceVersion | undefined> {
    this.#check()
    this.claim(to)
    if (this.#of(from.storageId).versions.length === 0) return undefined
    return this.#commit(to, this.#treeOf(from), 'fork').version
  }

  async restore(hold: WorkspaceHold, version: number): Promise<WorkspaceVersion> {
    this.#check()
    this.claim(hold)
    return this.#commit(hold, this.#treeOf({ storageId: hold.storageId, version }), 'restore').version
  }

  async diff(storageId: string, options: { from: number; to: number; content: boolean; limit: number }): Promise<WorkspaceDiff> {
    this.#check()
    const [before, after] = [options.from, options.to].map((version) => (version === 0 ? undefined : this.#treeOf({ storageId, version })))
    const differences: WorkspaceDifference[] = []
    for (const path of [...new Set([...(before?.keys() ?? []), ...(after?.keys() ?? [])])].sort()) {
      const [old, now] = [before?.get(path), after?.get(path)]
      if (old && now && sameFile(old, now)) continue
      differences.push({
        path,
        change: old === undefined ? 'added' : now === undefined ? 'removed' : 'changed',
        ...(old && { before: stateOf(old) }),
        ...(now && { after: stateOf(now) }),
        ...(options.content ? { content: `-${old?.content ?? ''}\n+${now?.content ?? ''}\n` } : {}),
      })
    }
    return { differences: differences.slice(0, options.limit), truncated: differences.length > options.limit }
  }

  async saveLeft(hold: WorkspaceHold): Promise<WorkspaceSaved | undefined> {
    const local = this.#stored.get(hold.storageId)?.local
    if (local === undefined) return undefined
    this.attempts++
    await this.beforeSave(hold.storageId)
    this.#check()
    this.claim(hold)
    return this.#commit(hold, local, 'sync')
  }

  async left(): Promise<readonly string[]> {
    return [...this.#stored].filter(([, { local }]) => local !== undefined).map(([storageId]) => storageId)
  }

  async remove(storageId: string): Promise<void> {
    this.#check()
    this.#stored.delete(storageId)
    this.removed.push(storageId)
  }

  #commit(hold: WorkspaceHold, tree: Tree, reason: WorkspaceVersion['reason']): WorkspaceSaved {
    this.#check()
    const stored = this.#of(hold.storageId)
    if (hold.fence !== stored.fence) throw new MagsError('workspace_fenced', 'another holder has taken the workspace over')
    const last = stored.versions.at(-1)
    this.saves++
    stored.local = undefined
    if (reason === 'sync' && last && same(last.tree, tree)) return { version: last.info, changed: false, skippedCount: 0 }
    const bytes = (one: Tree) => [...one.values()].reduce((sum, { content }) => sum + content.length, 0)
    const info: WorkspaceVersion = {
      version: stored.versions.length + 1,
      createdAt: new Date().toISOString(),
      reason,
      sizeBytes: bytes(tree),
      entryCount: tree.size,
      uploadedBytes: reason === 'sync' ? bytes(new Map([...tree].filter(([path, file]) => !sameFile(last?.tree.get(path), file)))) : 0,
      image,
    }
    stored.versions.push({ info, tree })
    return { version: info, changed: true, skippedCount: 0 }
  }

  #treeOf({ storageId, version }: WorkspaceSource): Tree {
    const { versions } = this.#of(storageId)
    const found = version === undefined ? versions.at(-1) : versions[version - 1]
    if (found === undefined) throw new MagsError('not_found', `there is no version ${version ?? 1} of ${storageId}`)
    return found.tree
  }

  #of(storageId: string): Stored {
    const stored = this.#stored.get(storageId) ?? { fence: 0, versions: [], local: undefined }
    this.#stored.set(storageId, stored)
    return stored
  }

  #check(): void {
    const fault = this.faults.shift() ?? this.fault
    if (fault) throw fault
  }
}

const stateOf = (file: FakeFile) => ({ kind: 'file' as const, sizeBytes: file.content.length, mode: file.mode })
const sameFile = (a: FakeFile | undefined, b: FakeFile) => a !== undefined && a.mode === b.mode && a.content.equals(b.content)
const same = (a: Tree, b: Tree) => a.size === b.size && [...b].every(([path, file]) => sameFile(a.get(path), file))
