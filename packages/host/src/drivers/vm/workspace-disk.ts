import { chown } from 'node:fs/promises'
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
