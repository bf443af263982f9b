import { readdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'

/** Whether some object of a folder store has these bytes in it. Only for bytes that are random, which no compression changes. */
export async function isStored(dataDir: string, bytes: Buffer): Promise<boolean> {
  const folder = join(dataDir, 'objects')
  for (const entry of await readdir(folder, { recursive: true, withFileTypes: true })) {
    if (entry.isFile() && (await readFile(join(entry.parentPath, entry.name))).includes(bytes)) return true
  }
  return false
}
