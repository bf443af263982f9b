import { Header } from 'tar'

/** What an entry is that is not a plain file. */
export type EntryOf = string | { readonly type: 'Directory' | 'SymbolicLink' | 'Link' | 'CharacterDevice'; readonly target?: string; readonly mode?: number }

/** An archive of these, by path, put together by hand: nothing in it is checked. */
export async function tarOf(entries: Readonly<Record<string, EntryOf>>): Promise<Buffer> {
  const parts: Buffer[] = []
  for (const [path, entry] of Object.entries(entries)) {
    const content = Buffer.from(typeof entry === 'string' ? entry : '')
    const shape =
      typeof entry === 'string' ? { type: 'File' as const, mode: 0o644 } : { type: entry.type, mode: entry.mode ?? 0o755, linkpath: entry.target ?? '' }
    const block = Buffer.alloc(512)
    new Header({ path, size: content.length, uid: 0, gid: 0, mtime: new Date(0), ...shape }).encode(block, 0)
    parts.push(block, content, Buffer.alloc((512 - (content.length % 512)) % 512))
  }
  return Buffer.concat([...parts, Buffer.alloc(1024)])
}
