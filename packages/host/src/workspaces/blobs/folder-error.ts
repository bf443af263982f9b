import { MagsError } from '@mags/protocol'

const passing: Readonly<Record<string, string>> = {
  ENOSPC: 'the disk is full; free some space there',
  EDQUOT: 'the disk quota is used up; raise it or free some space',
  EMFILE: 'too many files are open in this process; raise its limit (LimitNOFILE)',
  ENFILE: 'too many files are open on this machine; raise fs.file-max',
  EIO: 'the disk reports an error; look at the kernel log',
  ESTALE: 'the file system went away; mount it again',
  ETIMEDOUT: 'the file system does not answer',
  EAGAIN: 'the file system does not answer',
}

const lasting: Readonly<Record<string, string>> = {
  EACCES: 'permission denied; the folder must belong to the user the server runs as',
  EPERM: 'not permitted; the folder must belong to the user the server runs as, on a file system with hard links',
  EROFS: 'the file system is mounted read-only; mount it for writing or choose another folder',
  ENOTSUP: 'the file system has no hard links; choose a folder on another one (ext4, xfs, btrfs)',
  EMLINK: 'the file system allows no hard link here; choose a folder on another one (ext4, xfs, btrfs)',
  ELOOP: 'there is a symbolic link where an object should be',
  EISDIR: 'there is a folder where an object should be',
  ENOTDIR: 'there is an object where a folder should be',
}

/** Errors of the file system in the words of a blob store. */
export function folderError(folder: string, doing: string, error: unknown): unknown {
  if (error instanceof MagsError) return error
  const code = (error as NodeJS.ErrnoException).code
  if (typeof code !== 'string') return error
  const where = `${folder}: ${doing}`
  if (code in passing) return new MagsError('object_store_unavailable', `${where}: ${passing[code]} (${code}).`, { cause: error })
  return new MagsError('object_store_refused', `${where}: ${lasting[code] ?? (error as Error).message} (${code}).`, { cause: error })
}
