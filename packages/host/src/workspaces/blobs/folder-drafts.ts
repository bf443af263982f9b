import { constants } from 'node:fs'
import { type FileHandle, open, readdir, readlink, stat, unlink } from 'node:fs/promises'
import { join } from 'node:path'
import { identifyProcess, isAlive } from '../../recover/process-identity.ts'

const abandonedAfterMs = 3_600_000

/**
 * Files being written, before they get the name of their key. A draft's name says which process writes it, so that what a killed one left is found at the next start: process numbers mean something only
 * in their own namespace, elsewhere age decides.
 */
export class FolderDrafts {
  readonly #folder: string
  readonly #owner: string
  #count = 0

  private constructor(folder: string, owner: string) {
    this.#folder = folder
    this.#owner = owner
  }

  static async open(folder: string): Promise<FolderDrafts> {
    const self = await identifyProcess(process.pid)
    const drafts = new FolderDrafts(folder, `${await processNamespace()}.${process.pid}.${self?.startTicks ?? 0}.${Math.random().toString(36).slice(2, 10)}`)
    await drafts.#sweep()
    return drafts
  }

  /** A new file for writing; `path` is of whoever asks, to rename, link or unlink. */
  async create(): Promise<{ readonly path: string; readonly file: FileHandle }> {
    const path = join(this.#folder, `${this.#owner}.${++this.#count}`)
    return { path, file: await open(path, constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL | constants.O_NOFOLLOW, 0o600) }
  }

  async #sweep(): Promise<void> {
    const namespace = await processNamespace()
    for (const name of await readdir(this.#folder)) {
      const path = join(this.#folder, name)
      const [where, pid, startTicks] = name.split('.')
      const writing = where === namespace ? await isAlive({ pid: Number(pid), startTicks: Number(startTicks) }) : !(await isOld(path))
      if (!writing) await unlink(path).catch(() => undefined)
    }
  }
}

async function isOld(path: string): Promise<boolean> {
  const found = await stat(path).catch(() => undefined)
  return found !== undefined && found.mtimeMs < Date.now() - abandonedAfterMs
}

/** `pid:[4026531836]` as a number. */
async function processNamespace(): Promise<string> {
  return (await readlink('/proc/self/ns/pid').catch(() => '')).replace(/\D/g, '') || 'unknown'
}
