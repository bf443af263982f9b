import { MagsError } from '@mags/protocol'

const full = "the disk with the server's data is full; free some space on it (mags doctor has the figures)"

/** By what the system calls an error (errno(3)). */
const wordsByErrno: Readonly<Record<string, string>> = {
  ENOSPC: full,
  EDQUOT: "the disk quota of the server's data is used up; raise it or free some space",
  EROFS: "the disk with the server's data is mounted read-only; see the kernel's log for why, and mount it for writing again",
}

/** Primary result codes, https://www.sqlite.org/rescode.html */
const sqlite: Readonly<Record<number, string>> = {
  8: wordsByErrno.EROFS ?? '',
  10: "the disk with the server's data fails; see the kernel's log for why",
  13: full,
}

/** Class 53 of https://www.postgresql.org/docs/current/errcodes-appendix.html: disk_full. */
const postgresDiskFull = '53100'

/** Why nothing can be stored at the moment, and what to do, when that is what `error` or one of its causes says. The same write may succeed later. */
export function storageFaultOf(error: unknown): string | undefined {
  for (let at = error, depth = 0; at instanceof Error && depth < 8; at = at.cause, depth++) {
    if (at instanceof MagsError && at.code === 'storage_full') return at.message
    const { code, errcode } = at as Error & { code?: unknown; errcode?: unknown }
    if (code === 'ERR_SQLITE_ERROR' && typeof errcode === 'number') return sqlite[errcode & 0xff]
    if (code === postgresDiskFull) return "the disk of the server's database is full; free some space on it"
    if (typeof code === 'string' && code in wordsByErrno) return wordsByErrno[code]
  }
  return undefined
}
