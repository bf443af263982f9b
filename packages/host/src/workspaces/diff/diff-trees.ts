import type { WorkspaceDiff, WorkspaceDifference, WorkspacePathState } from '@mags/protocol'
import { BlockReader } from '../blocks/block-reader.ts'
import { BlockTable } from '../blocks/block-table.ts'
import type { Manifest, PackStore } from '../repository/repository.ts'
import { readTree } from '../tree/read-tree.ts'
import { compareTreeOrder } from '../tree/tree-order.ts'
import type { TreeRecord } from '../tree/tree-record.ts'
import { contentsOf, haveSameContents } from './compare-contents.ts'
import { RecordStream } from './record-stream.ts'
import { maxTextBytes, textDifference } from './text-difference.ts'

export interface DiffOptions {
  /** Most differences. */
  readonly limit: number
  /** With the lines of text files. */
  readonly content: boolean
  readonly abort?: AbortSignal
}

/** Most characters of all `content` together; later differences have none. */
const maxContent = 8 * 1024 * 1024

/** How the version `b` differs from `a`, in tree order. Times alone are no difference. Rejects with MagsError('workspace_damaged'). */
export async function diffTrees(a: Manifest, b: Manifest, packs: PackStore, { limit, content, abort }: DiffOptions): Promise<WorkspaceDiff> {
  const table = new BlockTable()
  const blocks = new BlockReader(table, packs, abort)
  const left = new RecordStream(readTree(a, packs, table, abort))
  const right = new RecordStream(readTree(b, packs, table, abort))
  const differences: WorkspaceDifference[] = []
  let contentLeft = maxContent
  try {
    await left.take()
    await right.take()
    for (;;) {
      const order = orderOf(left.next, right.next)
      if (order === undefined) return { differences, truncated: false }
      const before = order <= 0 ? await left.take() : undefined
      const after = order >= 0 ? await right.take() : undefined
      if (before !== undefined && after !== undefined && (await areSame(before, after, table, blocks))) continue
      if (differences.length >= limit) return { differences, truncated: true }
      const difference = differenceOf(before, after)
      const lines = content && contentLeft > 0 ? await linesOf(difference.path, before, after, blocks) : undefined
      contentLeft -= lines?.length ?? 0
      differences.push(lines === undefined ? difference : { ...difference, content: lines })
    }
  } finally {
    await left.close()
    await right.close()
  }
}

function orderOf(left: TreeRecord | undefined, right: TreeRecord | undefined): number | undefined {
  if (left === undefined) return right === undefined ? undefined : 1
  return right === undefined ? -1 : compareTreeOrder(left.path, right.path)
}

async function areSame(a: TreeRecord, b: TreeRecord, table: BlockTable, blocks: BlockReader): Promise<boolean> {
  if (a.kind !== b.kind || a.mode !== b.mode || a.uid !== b.uid || a.gid !== b.gid || a.attributes.length !== b.attributes.length) return false
  if (!a.attributes.every(({ name, value }, index) => name === b.attributes[index]?.name && value.equals(b.attributes[index].value))) return false
  if (a.target !== undefined && b.target !== undefined && !a.target.equals(b.target)) return false
  return a.kind !== 'file' || haveSameContents(a, b, table, blocks)
}

/** A whiteout is a path that is not there: it comes with `removed` and goes with `added`. */
function differenceOf(before: TreeRecord | undefined, after: TreeRecord | undefined): WorkspaceDifference {
  const wasThere = before !== undefined && before.kind !== 'whiteout'
  const isThere = after !== undefined && after.kind !== 'whiteout'
  const hidesImage = after?.kind === 'whiteout'
  const change = isThere ? (wasThere ? 'changed' : 'added') : wasThere || hidesImage ? 'removed' : 'added'
  return {
    path: `/${(before ?? after)?.path.toString() ?? ''}`,
    change,
    ...(before === undefined ? {} : { before: stateOf(before) }),
    ...(after === undefined ? {} : { after: stateOf(after) }),
  }
}

function stateOf({ kind, sizeBytes, mode }: TreeRecord): WorkspacePathState {
  return { kind: kind === 'whiteout' ? 'removed' : kind, sizeBytes, mode }
}

async function linesOf(path: string, before: TreeRecord | undefined, after: TreeRecord | undefined, blocks: BlockReader): Promise<string | undefined> {
  const [old, fresh] = [before, after].map((record) => (record?.kind === 'file' ? record : undefined))
  if (old === undefined && fresh === undefined) return undefined
  if ((old?.sizeBytes ?? 0) > maxTextBytes || (fresh?.sizeBytes ?? 0) > maxTextBytes) return undefined
  const oldBytes = old === undefined ? undefined : await contentsOf(old, blocks)
  const freshBytes = fresh === undefined ? undefined : await contentsOf(fresh, blocks)
  if (oldBytes !== undefined && freshBytes !== undefined && oldBytes.equals(freshBytes)) return undefined
  return textDifference(path, oldBytes, freshBytes)
}
