/** Files that COPY takes from: what was sent, a stage, or an image. Paths are relative to its top. */
export interface SourceTree {
  /** In words, such as `the context`. */
  readonly words: string
  /** What a pattern names; in order, links followed. */
  match(pattern: string): Promise<readonly SourceMatch[]>
  /** The same as long as what COPY takes by these patterns is the same. Rejects when that cannot be told. */
  fingerprint(patterns: readonly string[]): Promise<string>
  /** An archive with these, folders with all in them. It may hold more. */
  pack(paths: readonly string[]): AsyncIterable<Uint8Array>
}

export interface SourceMatch {
  /** Where it lies; empty is the top itself. */
  readonly path: string
  /** Its own name, which a link to it may have differently. */
  readonly name: string
  readonly isFolder: boolean
}
