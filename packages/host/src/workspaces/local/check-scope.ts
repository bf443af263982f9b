import { MagsError } from '@mags/protocol'
import type { Manifest, PackStore } from '../repository/repository.ts'
import { readTree } from '../tree/read-tree.ts'
import { isUnder } from '../tree/tree-order.ts'
import { scopeFolder } from './scope-folder.ts'

/** Rejects with MagsError 'bad_request' when a version has more than the one folder that is kept of the workspace it is to become a version of. Reads its tree. */
export async function checkScope(manifest: Manifest, packs: PackStore, scope: string): Promise<void> {
  const folder = Buffer.from(scopeFolder(scope))
  for await (const records of readTree(manifest, packs)) {
    for (const { path } of records) {
      if (path.length === 0 || path.equals(folder) || isUnder(path, folder)) continue
      throw new MagsError(
        'bad_request',
        `base_workspace_id: that workspace has more than ${scope}, which is all that is kept of this one; start from one that has only that`,
      )
    }
  }
}
