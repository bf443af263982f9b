import { getSystemErrorMap } from 'node:util'
import { MagsError } from '@mags/protocol'
import { errnoMessage } from '../agent/request-error.ts'

/** What the worker refuses because no workspace can hold it, however often one tries. */
const notSavable: readonly string[] = ['EOVERFLOW', 'EFBIG', 'E2BIG', 'ENAMETOOLONG', 'ENOTSUP', 'EXDEV']

/**
 * Why a worker gave up. `details` has `errno`, `errno_name` when it has one, `step` and `path` (bytes that are no UTF-8 as U+FFFD).
 */
export function layerError(errno: number, step: string, path: Buffer): MagsError {
  const name = getSystemErrorMap().get(-errno)?.[0]
  const where = path.length === 0 ? 'the layer' : JSON.stringify(path.toString('utf8'))
  const code = notSavable.includes(name ?? '') ? 'workspace_not_savable' : 'sandbox_failed'
  const details = { errno, ...(name === undefined ? {} : { errno_name: name }), step, path: path.toString('utf8') }
  return new MagsError(code, `${where}: ${step}: ${errnoMessage(errno)}`, { details })
}
