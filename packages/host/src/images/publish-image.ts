import { createHash } from 'node:crypto'
import { createReadStream } from 'node:fs'
import { chmod, mkdir, open, rename, rm, stat, symlink, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { run } from '../run.ts'
import { runImageProgram } from './image-program.ts'
import { encodeImageRecord, type ImageRecord } from './image-record.ts'
import type { ImportWork } from './import/import-work.ts'
import { megabytes } from './import/progress.ts'

/** As in the recipes: the same tree gives the same file system, and so the same digest. */
const fileSystemId = '6d616773-0000-4000-8000-64656269616e'

/** Makes `dir/root.erofs` of `dir/rootfs`, in which nothing is newer than `newestNs`. Resolves with its digest, `sha256:…`. */
export async function makeErofs(dir: string, newestNs: bigint, work: ImportWork): Promise<string> {
  const file = join(dir, 'root.erofs')
  work.progress.step('making the read-only disk for virtual machines')
  const watch = async () => {
    const written = (await stat(file).catch(() => undefined))?.size ?? 0
    work.progress.step(`making the read-only disk for virtual machines: ${megabytes(written)}`)
  }
  // mkfs.erofs(1) gives the disk this time, and also what is not older.
  const env = { PATH: process.env.PATH ?? '/usr/sbin:/usr/bin:/sbin:/bin', SOURCE_DATE_EPOCH: `${newestNs / 1_000_000_000n + 1n}` }
  const { code, words } = await runImageProgram(work, { command: 'mkfs.erofs', args: ['--quiet', '-U', fileSystemId, file, join(dir, 'rootfs')], env, watch })
  if (code !== 0) throw new Error(`mkfs.erofs could not make the image's disk (exit ${code}): ${words.slice(-500)}`)
  return digestOf(file, work)
}

export async function digestOf(file: string, { abort, progress }: Pick<ImportWork, 'abort' | 'progress'>): Promise<string> {
  const hash = createHash('sha256')
  let read = 0
  for await (const chunk of createReadStream(file, { highWaterMark: 1 << 20 })) {
    abort.throwIfAborted()
    hash.update(chunk as Buffer)
    read += (chunk as Buffer).length
    progress.tick(() => `computing its digest: ${megabytes(read)}`)
  }
  return `sha256:${hash.digest('hex')}`
}

/**
 * Has `dir` (rootfs, root.erofs) be the newest version of an image, whole and on the disk before its name says so. When there is a version with the same bytes that one becomes the newest, and only what is noted about it changes.
 */
export async function publishImage(imagesDir: string, dir: string, record: ImageRecord, work: ImportWork, recipeDigest?: string): Promise<void> {
  const folder = record.digest.slice('sha256:'.length)
  const home = join(imagesDir, record.name)
  const target = join(home, folder)
  const note = join(dir, 'image.json')
  work.progress.step('writing it to the disk')
  await writeFile(note, encodeImageRecord(record, recipeDigest))
  // Programs with the set-user-id bit lie in it: nobody else of this machine gets at them.
  await chmod(dir, 0o700)
  await run('sync', ['-f', join(dir, 'root.erofs')], { timeoutMs: 600_000 })
  work.abort.throwIfAborted()
  await mkdir(home, { recursive: true, mode: 0o755 })
  if (await stat(target).catch(() => undefined)) await rename(note, join(target, 'image.json'))
  else {
    await rename(dir, target).catch(async (error: NodeJS.ErrnoException) => {
      // Another daemon was faster with the same bytes.
      if (error.code !== 'ENOTEMPTY' && error.code !== 'EEXIST') throw error
    })
  }
  await pointTo(home, folder, work.dir)
  await syncFolder(home)
}

/** `home/current` leads to a version, by one rename. `draftDir` is on the same file system. */
export async function pointTo(home: string, folder: string, draftDir: string): Promise<void> {
  const draft = join(draftDir, 'current')
  await rm(draft, { force: true })
  await symlink(folder, draft)
  await rename(draft, join(home, 'current'))
}

async function syncFolder(dir: string): Promise<void> {
  await using handle = await open(dir, 'r')
  await handle.sync()
}
