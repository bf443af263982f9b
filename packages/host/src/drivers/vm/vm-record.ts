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
}
