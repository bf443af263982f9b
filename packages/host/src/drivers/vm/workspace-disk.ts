import { chown, link, open } from 'node:fs/promises'
import { basename } from 'node:path'
import { makeScratchDisk, type ScratchDisk } from '../scratch-disk.ts'
import { placeholderNode, workspaceNode } from './command-line.ts'
import type { QmpConnection } from './qmp.ts'

/** The upper layer of one machine. The host never mounts it: a guest wrote it. */
export type WorkspaceDisk = ScratchDisk

/** Makes a disk that only QEMU's user may open. */
export async function makeWorkspaceDisk(file: string, diskGb: number, uid: number): Promise<WorkspaceDisk> {
  const disk = await makeScratchDisk(file, diskGb)
  await chown(file, uid, uid)
  return disk
}

/** Offset of the UUID in an ext4 image: byte 0x68 of the superblock, which begins at 1024 (ext4(5)). All that the host ever reads of a guest's disk. */
const uuidOffset = 1024 + 0x68

/** Lends a disk that lies elsewhere to a machine: another name for it in the machine's folder, readable by its user alone. The two must be on one file system. */
export async function lendDisk(from: string, file: string, uid: number): Promise<WorkspaceDisk> {
  await link(from, file)
  await chown(file, uid, uid)
  await using image = await open(file, 'r')
  const { size } = await image.stat()
  const { buffer } = await image.read(Buffer.alloc(16), 0, 16, uuidOffset)
  const hex = buffer.toString('hex')
  const fileSystemUuid = [hex.slice(0, 8), hex.slice(8, 12), hex.slice(12, 16), hex.slice(16, 20), hex.slice(20)].join('-')
  return { file, sizeBytes: size, fileSystemUuid }
}

/**
 * Which image lies under the guest's workspace disk. There is no hot plug on a microvm: the disk is always there, with a placeholder under it that is swapped for an image and back.
 *
 *     placeholder ──swapIn──▶ image ──swapIn──▶ other image ──swapOut──▶ placeholder
 */
export class DiskSlot {
  readonly #qmp: QmpConnection
  #sizeBytes: number
  #node: string | undefined
  #count = 0

  /** @param placeholderBytes the size the guest saw last */
  constructor(qmp: QmpConnection, placeholderBytes: number) {
    this.#qmp = qmp
    this.#sizeBytes = placeholderBytes
  }

  /** Puts an image in. It must lie in the folder that QEMU has as its root; the guest must have nothing of the earlier one mounted. */
  async swapIn(disk: WorkspaceDisk): Promise<void> {
    const node = `disk-${this.#count++}`
    const old = this.#node
    this.#node = node
    await Promise.all([
      this.#qmp.execute('blockdev-add', { driver: 'file', 'node-name': node, filename: `/${basename(disk.file)}`, discard: 'unmap' }),
      this.#reopen(node),
      ...(disk.sizeBytes === this.#sizeBytes ? [] : [this.#qmp.execute('block_resize', { 'node-name': workspaceNode, size: disk.sizeBytes })]),
      ...(old === undefined ? [] : [this.#qmp.execute('blockdev-del', { 'node-name': old })]),
    ])
    this.#sizeBytes = disk.sizeBytes
  }

  /** Back to the placeholder. It cannot be resized, so the guest goes on seeing the image's size. */
  async swapOut(): Promise<void> {
    const old = this.#node
    if (old === undefined) return
    this.#node = undefined
    await Promise.all([this.#reopen(placeholderNode), this.#qmp.execute('blockdev-del', { 'node-name': old })])
  }

  #reopen(file: string) {
    return this.#qmp.execute('blockdev-reopen', { options: [{ driver: 'raw', 'node-name': workspaceNode, file, discard: 'unmap' }] })
  }
}
