import { mkdir, rm } from 'node:fs/promises'
import { release } from 'node:os'
import { join } from 'node:path'
import { MagsError } from '@mags/protocol'
import type { MounterClient } from '../../mounter/mounter-client.ts'
import type { OciRuntime } from './oci-runtime.ts'

/**
 * How a container comes by its root:
 * - `swap`: it starts with a tiny one and gets its own while it runs, as often as wanted;
 * - `mounted`: it starts with its own;
 * - `shifted`: so, too, and the ids of the image are changed on disk because the kernel cannot map them.
 */
export type RootMode = 'swap' | 'mounted' | 'shifted'

export interface ChooseRootModeDeps {
  readonly mounter: MounterClient
  readonly runtime: OciRuntime
  /** A folder on the disk where upper layers will be. */
  readonly scratchDir: string
  /** A small tree to try things on. */
  readonly warmRootDir: string
  readonly wish: RootMode | undefined
}

/** Highest range of ids; no slot has it. */
const trialUidBase = 0xffff_ffff - 0xffff - 0x1_0000

/** Finds out by trying what this kernel and runtime can do. Rejects with the kernel's words when there is no way at all. */
export async function chooseRootMode(deps: ChooseRootModeDeps): Promise<{ mode: RootMode; detail: string }> {
  const refusal = await deps.mounter.probe(deps.scratchDir).then(
    () => undefined,
    (error: Error) => error,
  )
  const mode = deps.wish ?? (refusal !== undefined ? 'shifted' : deps.runtime === 'crun' ? 'swap' : 'mounted')
  if (mode !== 'shifted' && refusal !== undefined) throw refusal
  if (mode === 'swap' && deps.runtime !== 'crun')
    throw new MagsError('not_available', `roots are swapped under containers of crun only, not of ${deps.runtime}`)
  if (mode === 'shifted') await tryShift(deps, refusal)
  const reason = refusal === undefined ? '' : ` (${refusal.message})`
  const details = {
    swap: `containers by ${deps.runtime} share the kernel of this machine`,
    mounted: `containers by ${deps.runtime} share the kernel of this machine; each is made with its root, so a job with a workspace waits for one`,
    shifted: `containers by ${deps.runtime} share the kernel of this machine, ${release()}, which cannot map the ids of an overlay's layers${reason}: the image is changed once for each sandbox slot, and there are no workspaces in containers`,
  }
  return { mode, detail: details[mode] }
}

async function tryShift({ mounter, scratchDir, warmRootDir }: ChooseRootModeDeps, refusal: Error | undefined) {
  const dir = join(scratchDir, '.trial')
  try {
    await mkdir(dir, { recursive: true, mode: 0o700 })
    await mounter.resetUpper(dir)
    await mounter.shift({ uidBase: trialUidBase, imageDir: warmRootDir, dir })
  } catch (error) {
    if (refusal === undefined) throw error
    throw new Error(`${refusal.message}; nor can ids be shifted: ${(error as Error).message}`, { cause: refusal })
  } finally {
    await rm(dir, { recursive: true, force: true })
  }
}

/** Why a root of a workspace cannot be had in mode `shifted`. */
export function noWorkspaces() {
  return new MagsError(
    'not_available',
    `workspaces do not work in containers on this machine: its kernel, ${release()}, cannot map the ids of an overlay's layers. Use isolation "vm", or Linux 5.19 or newer with ext4, xfs or btrfs`,
  )
}
