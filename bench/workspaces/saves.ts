import { rm } from 'node:fs/promises'
import { join } from 'node:path'
import { makePlace, startDaemon } from '../../tests/kit/daemon.ts'
import { WorkspaceClient } from '../../tests/kit/workspace-client.ts'
import { changeTree, makeTree } from './tree-script.ts'

export interface SaveTimes {
  readonly firstMs: number
  readonly firstBytes: number
  readonly changedMs: number
  readonly changedBytes: number
  readonly unchangedMs: number
  readonly restoreMs: number
  /** Uploaded for 4 KiB changed in a file of 500 MB. */
  readonly bigFileBytes: number
}

/** Saves on request of a running sandbox, and a start on a machine that has nothing of the workspace. */
export async function measureSaves(environment: Record<string, string>): Promise<SaveTimes> {
  await using place = await makePlace()
  const saved = await saveAll(environment, place)
  // What a machine without it has: nothing but the records and the object store.
  for (const name of ['layers', 'workspaces']) await rm(join(place.dataDir, name), { recursive: true, force: true })
  await using daemon = await startDaemon(environment, place)
  const client = new WorkspaceClient(daemon)
  const begin = performance.now()
  const id = await client.open({ workspace_id: 'bench' })
  const restoreMs = performance.now() - begin
  await client.exec(id, 'test "$(ls /root/tree | wc -l)" = 200')
  await client.stop(id)
  return { ...saved, restoreMs }
}

async function saveAll(environment: Record<string, string>, place: Parameters<typeof startDaemon>[1]) {
  await using daemon = await startDaemon({ ...environment, MAGS_SYNC_SECONDS: '3600' }, place)
  const client = new WorkspaceClient(daemon)
  const id = await client.open({ workspace_id: 'bench' })
  await client.exec(id, makeTree('/root/tree'))
  const first = await client.sync(id)
  await client.exec(id, changeTree('/root/tree', 2))
  const changed = await client.sync(id)
  const unchanged = await client.sync(id)
  await client.stop(id)
  const big = await client.open({ workspace_id: 'big', disk_gb: 4 })
  await client.exec(big, 'head -c 500000000 /dev/urandom > /root/big')
  await client.sync(big)
  await client.exec(big, 'head -c 4096 /dev/urandom | dd of=/root/big bs=4096 seek=61000 conv=notrunc 2>/dev/null')
  const bigFile = await client.sync(big)
  await client.stop(big)
  const { ms: firstMs, bytes: firstBytes } = first
  return { firstMs, firstBytes, changedMs: changed.ms, changedBytes: changed.bytes, unchangedMs: unchanged.ms, bigFileBytes: bigFile.bytes }
}
