import type { ProcessIdentity } from '../../recover/process-identity.ts'
import type { SandboxShape } from '../driver.ts'

export const recordName = 'record.json'

/** `record.json` in a machine's folder: all that is needed to free it, or to take it back. */
export interface VmRecord {
  readonly id: string
  /** Number of its user and tap, see `VmSlots`. */
  readonly slot: number
  readonly shape: SandboxShape
  /** Absent until QEMU was started. */
  readonly process?: ProcessIdentity
  /** A job has it; only such a machine is taken back. */
  readonly attached: boolean
  readonly keep: boolean
  /** The image it was started with: a saved machine goes on with that very one. */
  readonly imageFile?: string
  /** Name of its disk in its folder. */
  readonly disk?: string
  /** It stands still on purpose, or is on its way there. */
  readonly asleep?: boolean
  /** It is in `memoryName`, whole; should its QEMU still be there, it has not run since. */
  readonly hibernated?: boolean
}

/** Memory and devices of a machine that is hibernated, in its folder. */
export const memoryName = 'memory'
