import { MagsError } from '@mags/protocol'
import type { PackId } from '../repository/repository.ts'
import { FormatError } from './byte-reader.ts'

/** The error for a part of a version that is not what was written. */
export function damaged(what: string, pack: PackId, offset: number, cause?: unknown): MagsError {
  const words = `The saved workspace is damaged: ${what}, in pack ${pack} at byte ${offset}. Restore an earlier version, or put the pack back from a copy of the object store.`
  return new MagsError('workspace_damaged', words, { details: { pack, offset }, cause })
}

/** Runs `read`; a FormatError in it becomes the error for that place. */
export function readingFrom<T>(pack: PackId, offset: number, what: string, read: () => T): T {
  try {
    return read()
  } catch (error) {
    if (error instanceof FormatError) throw damaged(`${what} cannot be read because ${error.message}`, pack, offset, error)
    throw error
  }
}
