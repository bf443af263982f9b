import { randomUUID } from 'node:crypto'
import { open, readdir, readFile, realpath, rm, stat, truncate } from 'node:fs/promises'
import { run, runAny } from '../run.ts'

/** A sparse file with an ext4 file system, on which a sandbox's upper layer lies. It takes room only for what is written. */
export interface ScratchDisk {
  readonly file: string
  readonly sizeBytes: number
  readonly fileSystemUuid: string
}

/** A file for every 8 KiB: package managers make many small ones. */
const bytesPerInode = '8192'

/**
 * Makes such a file, readable by root alone; 10–20 ms. No journal: what is on it does not outlive its sandbox. Discarding first is what lets mkfs.ext4(8) mark the inode tables as
 * zeroed, or the kernel that mounts it would write them all out in the background.
 */
export async function makeScratchDisk(file: string, diskGb: number): Promise<ScratchDisk> {
  const sizeBytes = diskGb * 2 ** 30
  const fileSystemUuid = randomUUID()
  await rm(file, { force: true })
  const image = await open(file, 'wx', 0o600)
  try {
    await image.truncate(sizeBytes)
  } finally {
    await image.close()
  }
  const layout = ['-m', '0', '-i', bytesPerInode, '-O', '^has_journal', '-E', 'discard,lazy_itable_init=1', '-U', fileSystemUuid]
  await run('mkfs.ext4', ['-q', '-F', ...layout, file], { background: true })
  return { file, sizeBytes, fileSystemUuid }
}

/** e2fsck(8): up to this exit code all errors are corrected. */
const fsckCorrected = 1

/**
 * Makes such a disk larger, with all that is on it; nothing when it is that large already. Rejects when it is mounted (that it is in no VM is the caller's to know) and when its file system
 * cannot be repaired.
 */
export async function growDisk(file: string, diskGb: number): Promise<void> {
  const sizeBytes = diskGb * 2 ** 30
  if ((await stat(file)).size >= sizeBytes) return
  if (await isMounted(file)) throw new Error(`the disk ${file} is in use; it can be made larger only between two sandboxes`)
  // resize2fs(8) refuses a file system that was not checked since it was mounted last.
  await repairDisk(file)
  await truncate(file, sizeBytes)
  await run('resize2fs', [file], { background: true })
}

/** Copies a disk that nobody writes to meanwhile: shares blocks where the file system can, else copies what is not a hole. A file that is there is overwritten, and stays the same inode. */
export async function copyDisk(from: string, to: string) {
  await run('cp', ['--reflink=auto', '--sparse=always', from, to], { timeoutMs: 600_000 })
}

/** Puts a copy in order that was taken of a mounted disk. */
export async function repairDisk(file: string) {
  const checked = await runAny('e2fsck', ['-f', '-y', file], { background: true })
  if (checked.code > fsckCorrected) throw new Error(`the file system on ${file} cannot be repaired: ${(checked.stderr || checked.stdout).trim().slice(-300)}`)
}

/** Whether a loop device has it. */
async function isMounted(file: string) {
  const path = await realpath(file)
  const devices = (await readdir('/sys/block')).filter((name) => name.startsWith('loop'))
  const backing = await Promise.all(devices.map((name) => readFile(`/sys/block/${name}/loop/backing_file`, 'utf8').catch(() => '')))
  return backing.some((name) => name.trimEnd() === path)
}
