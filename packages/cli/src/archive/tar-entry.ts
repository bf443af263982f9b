/**
 * One entry of a tar archive. Paths are *binary strings*: each character is one byte of the name (latin1), so that names that are not
 * UTF-8 survive; `pathBytes` and `pathForPeople` turn them into what the file system and a reader want.
 */
export interface TarEntry {
  readonly type: 'file' | 'directory' | 'symlink' | 'hardlink' | 'other'
  readonly path: string
  /** Of a link; else empty. */
  readonly target: string
  /** Permission bits as they stand in the archive, 0 to 0o7777. */
  readonly mode: number
  /** Seconds since 1970, whole or with a fraction. */
  readonly modifiedAt: number
  /** Of the content that follows; 0 for everything that is not a file. */
  readonly sizeBytes: number
}

export function pathBytes(path: string): Buffer {
  return Buffer.from(path, 'latin1')
}

export function pathForPeople(path: string): string {
  const text = Buffer.from(path, 'latin1').toString('utf8')
  return text.length > 200 ? `${text.slice(0, 200)}…` : text
}

/** A binary string out of a name as JavaScript has it. */
export function binaryPath(name: string | Uint8Array): string {
  return Buffer.from(name as Uint8Array).toString('latin1')
}
