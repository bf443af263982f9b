interface Line<T> {
  /** In the order of their arrival; only the first one tries. */
  readonly items: Set<T>
  /** Who had the workspace when the first one tried. */
  holder: string | undefined
  isParked: boolean
  /** The workspace may have become free while the first one was trying. */
  wasFreed: boolean
}

/**
 * Who waits for a workspace, in the order of arrival, by workspace.
 *
 *     (none) ──join──► behind others ──the one before left──► trying ──park──► parked ──freed──► trying ──leave──► (none)
 */
export class WorkspaceLines<T> {
  readonly #lines = new Map<string, Line<T>>()

  /** At the end of the line; true when it is the first, whose turn it is to try. */
  join(workspace: string, item: T): boolean {
    const line = this.#lines.get(workspace)
    if (line === undefined) {
      this.#lines.set(workspace, { items: new Set([item]), holder: undefined, isParked: false, wasFreed: false })
      return true
    }
    line.items.add(item)
    return false
  }

  /** It has the workspace, or needs it no more. The next one whose turn it is to try, if that has changed. */
  leave(workspace: string, item: T): T | undefined {
    const line = this.#lines.get(workspace)
    if (line === undefined) return undefined
    const wasFirst = first(line) === item
    line.items.delete(item)
    if (line.items.size === 0) this.#lines.delete(workspace)
    if (!wasFirst) return undefined
    Object.assign(line, { holder: undefined, isParked: false, wasFreed: false })
    return first(line)
  }

  /** The first one tried, and another job has the workspace. False when that may be over by now: it is to try again. */
  park(workspace: string, holder: string): boolean {
    const line = this.#lines.get(workspace)
    if (line === undefined) return false
    line.holder = holder
    line.isParked = !line.wasFreed
    line.wasFreed = false
    return line.isParked
  }

  /** The workspace may be free: the one whose turn it is to try again. */
  freed(workspace: string): T | undefined {
    const line = this.#lines.get(workspace)
    if (line === undefined) return undefined
    line.wasFreed = !line.isParked
    if (!line.isParked) return undefined
    line.isParked = false
    return first(line)
  }

  /** Who has the workspace, or is before all others to get it. */
  before(workspace: string): { readonly holder: string } | { readonly first: T } | undefined {
    const line = this.#lines.get(workspace)
    if (line === undefined) return undefined
    if (line.holder !== undefined) return { holder: line.holder }
    const item = first(line)
    return item === undefined ? undefined : { first: item }
  }

  /** Workspaces that are waited for, with who had them. */
  get parked(): readonly { readonly workspace: string; readonly holder: string }[] {
    return [...this.#lines].flatMap(([workspace, { isParked, holder }]) => (isParked && holder !== undefined ? [{ workspace, holder }] : []))
  }
}

function first<T>({ items }: Line<T>): T | undefined {
  const [item] = items
  return item
}
