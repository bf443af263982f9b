import { renameSync, writeFileSync } from 'node:fs'
import { readdir, readFile, rm } from 'node:fs/promises'
import { dirname, join } from 'node:path'

/**
 * A small JSON file that is always whole: written beside, then renamed. Records say what was taken from the host *before* it is taken, so that the next start can give it back. Written while the
 * caller waits: they are small and lie on tmpfs or in the page cache, where a trip to another thread costs more than the writing.
 */
export async function writeRecord(path: string, record: unknown) {
  const draft = `${path}.part`
  writeFileSync(draft, JSON.stringify(record), { mode: 0o600 })
  renameSync(draft, path)
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
