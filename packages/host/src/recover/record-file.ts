import { open, readdir, readFile, rename, rm } from 'node:fs/promises'
import { dirname, join } from 'node:path'

/**
 * A small JSON file that is always whole: written beside, flushed, renamed. Records say what was taken from the host *before* it is taken, so that the next start
 * can give it back.
 */
export async function writeRecord(path: string, record: unknown) {
  const draft = `${path}.part`
  const file = await open(draft, 'w', 0o600)
  try {
    await file.writeFile(JSON.stringify(record))
  } finally {
    await file.close()
  }
  await rename(draft, path)
}

/** The record, or undefined when there is none or it cannot be read. */
export async function readRecord<T>(path: string): Promise<T | undefined> {
  try {
    return JSON.parse(await readFile(path, 'utf8')) as T
  } catch {
    return undefined
  }
}

/** Folders of `dir` with their record; those without a readable one were never used and are removed. */
export async function readRecords<T>(dir: string, fileName: string): Promise<{ dir: string; name: string; record: T }[]> {
  const found = []
  for (const name of await readdir(dir).catch(() => [])) {
    const path = join(dir, name, fileName)
    const record = await readRecord<T>(path)
    if (record === undefined) await rm(dirname(path), { recursive: true, force: true })
    else found.push({ dir: join(dir, name), name, record })
  }
  return found
}
