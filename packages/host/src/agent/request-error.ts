import { constants } from 'node:os'
import { getSystemErrorMap } from 'node:util'
import { type ErrorCode, MagsError } from '@mags/protocol'

const codes: Readonly<Record<string, ErrorCode>> = {
  ENOENT: 'not_found',
  ENOTDIR: 'bad_request',
  EISDIR: 'bad_request',
  EEXIST: 'bad_request',
  EINVAL: 'bad_request',
  ENAMETOOLONG: 'bad_request',
  ENOTEMPTY: 'bad_request',
  ELOOP: 'bad_request',
  EACCES: 'forbidden',
  EPERM: 'forbidden',
  EROFS: 'forbidden',
  EFBIG: 'too_large',
  ENOSPC: 'too_large',
  EDQUOT: 'too_large',
  ENOSYS: 'not_available',
  EOPNOTSUPP: 'not_available',
}

/** What file systems say that Node has no name for. */
const others: ReadonlyMap<number, readonly [name: string, words: string]> = new Map([
  [74, ['EBADMSG', 'the file system is damaged']],
  [117, ['EUCLEAN', 'the file system is damaged']],
])

/** `no such file or directory (ENOENT)`. Both ends are Linux, so the numbers agree. */
export function errnoMessage(errno: number): string {
  const [name, words] = getSystemErrorMap().get(-errno) ?? others.get(errno) ?? [`errno ${errno}`, 'failed']
  return `${words} (${name})`
}

/** What the agent answered to a request, as our error. `details.errno` is the number, `details.errno_name` its name when it has one. */
export function requestError(what: string, errno: number): MagsError {
  const name = getSystemErrorMap().get(-errno)?.[0]
  return new MagsError(codes[name ?? ''] ?? 'sandbox_failed', `${what}: ${errnoMessage(errno)}`, { details: { errno, ...(name ? { errno_name: name } : {}) } })
}

/** A connection to a port of the sandbox was refused: what people see while their server is not up yet. */
export function notListening(port: number): MagsError {
  const errno = constants.errno.ECONNREFUSED
  return new MagsError('not_listening', `nothing listens on port ${port} of the sandbox: ${errnoMessage(errno)}`, { details: { errno, port } })
}
