import type { HostApi } from '@mags/protocol'
import type { Logger } from 'pino'
import { timestamp } from '../state/timestamp.ts'
import { refreshVersion } from './refresh-version.ts'
import { removeData } from './remove-workspace.ts'
import type { LeftSaver } from './save-left.ts'
import type { WorkspaceStore } from './store.ts'
import type { Turns } from './turns.ts'

export interface TendDeps {
  readonly workspaces: WorkspaceStore
  readonly host: HostApi
  readonly turns: Turns
  readonly left: LeftSaver
  readonly clock: () => number
  readonly logger: Logger
  /** Nothing new is begun once it is aborted. */
  readonly closing: AbortSignal
}

const notSavedWords = 'the server ended before it was saved'

/**
 * What a former process, or an object store that did not answer, left undone: versions that are not noted (`ended`: storage ids of jobs that ended with that process), changes that are not saved,
 * removed workspaces whose data are still there. Never rejects: what fails is logged, and done by the next call.
 */
export async function tendWorkspaces(deps: TendDeps, ended: readonly string[] = []): Promise<void> {
  const attempt = async (words: string, work: () => Promise<void>, details: Record<string, unknown> = {}) => {
    if (!deps.closing.aborted) await work().catch((error: unknown) => deps.logger.warn({ err: error, ...details }, words))
  }
  await attempt('workspaces with changes that are not saved could not be listed', () => addLeft(deps))
  for (const storageId of ended) await attempt('the newest version of a workspace could not be read', () => refreshVersion(deps, storageId), { storageId })
  await attempt('deleted workspaces could not be listed', async () => {
    for (const storageId of await deps.workspaces.listRemoved())
      await attempt('the data of a deleted workspace could not be taken away', () => removeData(deps, storageId), { storageId })
  })
}

async function addLeft({ workspaces, host, left, clock, logger }: TendDeps): Promise<void> {
  for (const storageId of await host.workspaces.left()) {
    const workspace = await workspaces.byStorageId(storageId)
    if (workspace === undefined) logger.warn({ storageId }, 'this machine has changes of a workspace that is not in the database')
    // A job that has it goes on from them.
    if (workspace === undefined || workspace.holderRequestId !== null) continue
    if (workspace.unsavedSince === null) await workspaces.recordUnsaved(storageId, timestamp(clock()), notSavedWords)
    left.add(storageId)
  }
}
