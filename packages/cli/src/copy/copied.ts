/** What `mags cp` did. */
export interface Copied {
  readonly destination: string
  /** On the wire, where a folder is an archive with its headers. */
  readonly bytes: number
  /** Sockets, devices and pipes, which are left out. */
  readonly skipped: readonly string[]
}
