import type { WorkspaceClaim } from '../repository/repository.ts'

/**
 * What this machine has of a workspace: a chain of layers, the newest of which is written by its sandboxes.
 *
 *     (none) ──restored, forked, first use──▶ clean ──sandbox takes it──▶ open ──saved, sandbox gone──▶ clean
 *                                               │                          └──sandbox gone without a save──▶ left ──saved──▶ clean
 *                                               └──another version is the newest, machine lost power──▶ (none)
 *
 * `left` is `open` without a sandbox: it holds changes nobody else has.
 */
export interface WorkingCopy {
  readonly storageId: string
  /** Disks, topmost first, at least one. */
  readonly layers: readonly string[]
  /** The topmost layer is under other chains, too, or about to be: nobody writes to it any more, the next user gets a new one on top. */
  readonly frozen: boolean
  /** Who wrote the topmost layer. A disk that a guest has written is never mounted by the host. */
  readonly writtenBy: 'host' | 'guest'
  /** The version these layers are, or were when the topmost was opened; 0: none yet. */
  readonly version: number
  /** The version of this workspace that the layers under the topmost are; without meaning when there is one layer. */
  readonly versionUnder: number
  /** The topmost layer may have changes that are not saved. */
  readonly open: boolean
  /** Nothing could write any more when its sandbox was ended. Without that a guest's disk lacks what was only in the guest's memory, and is not used again. */
  readonly halted: boolean
  /** The right to save them, once somebody has it. */
  readonly claim?: WorkspaceClaim
  /** Who writes to it. */
  readonly sandboxId?: string
  readonly image: { readonly name: string; readonly digest: string }
  readonly diskGb: number
  /** See `WorkspaceHold.scope`. The topmost layer may have more, as long as it is not frozen; those under it never have. */
  readonly scope?: string
  /** /proc/sys/kernel/random/boot_id of when it was written last. */
  readonly bootId: string
  /** The host's disk was full, and something written to the topmost layer is gone: it is neither saved nor used again. */
  readonly damaged?: true
  /** All of it has reached the real disk. Otherwise it is not trusted after the machine was started anew. */
  readonly settled: boolean
}

/** What an ended sandbox left can be read: a host's page cache outlives a container, a guest's memory does not outlive its machine. */
export const isReadable = ({ open, writtenBy, halted, damaged }: WorkingCopy): boolean => !open || (!damaged && (writtenBy === 'host' || halted))
