import { MagsError } from '@mags/protocol'
import type { SavedState } from '../cache/store.ts'

/** A build cannot go on with what it has in the cache. What it can do without the cache it still can. */
export class CacheFault extends Error {
  /** What is not there any more, or damaged; undefined when it may be there another time. */
  readonly lost: SavedState | undefined

  constructor(saved: SavedState | undefined, cause: unknown) {
    super(cause instanceof MagsError ? cause.message : 'a fault of the server', { cause })
    this.name = 'CacheFault'
    const isGone = cause instanceof MagsError && ['not_found', 'workspace_damaged', 'bad_request'].includes(cause.code)
    this.lost = isGone ? saved : undefined
  }
}
