import { isFinal, MagsError } from '@mags/protocol'
import type { Job } from '../jobs/job.ts'
import type { JobDefinition } from './definition.ts'
import type { JobDefinitionStore, NameColumn } from './store.ts'

export interface FindDefinitionDeps {
  readonly definitions: JobDefinitionStore
}

export function unknownJob(id: string): MagsError {
  return new MagsError('not_found', `no job ${JSON.stringify(id.slice(0, 64))}; 'mags job list' shows those there are`)
}

/** Looks like an id of ours. */
const idPattern = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/

/** The job that a path names: by its id, the id of one of its runs, its name or its workspace. Of several the newest with a run that is not over, else the newest. Rejects with MagsError('not_found'). */
export async function findDefinition(deps: FindDefinitionDeps, accountId: string, id: string): Promise<JobDefinition> {
  return (await find(deps, accountId, id)).definition
}

/** The run that a path names: by its id; of what names a job the newest run that is not over, else the newest. Rejects with MagsError('not_found'). */
export async function findRun(deps: FindDefinitionDeps, accountId: string, id: string): Promise<Job> {
  const { definition, run } = await find(deps, accountId, id)
  if (run) return run
  const newest = await deps.definitions.newestRun(definition.id)
  if (newest === undefined) throw unknownJob(id)
  return isFinal(newest.status) ? ((await deps.definitions.findOpenRun(accountId, ['id'], definition.id)) ?? newest) : newest
}

async function find({ definitions }: FindDefinitionDeps, accountId: string, id: string): Promise<{ definition: JobDefinition; run?: Job }> {
  const definition = await definitions.get(accountId, id)
  if (definition) return { definition }
  const run = await definitions.getRun(accountId, id)
  const itsOwn = run?.definitionId == null ? undefined : await definitions.get(accountId, run.definitionId)
  if (run && itsOwn) return { definition: itsOwn, run }
  // The workspace of a job that was deleted may have its id, which means nobody else.
  const columns: readonly NameColumn[] = idPattern.test(id) ? ['name'] : ['name', 'workspace_id']
  const open = await definitions.findOpenRun(accountId, columns, id)
  const itsJob = open?.definitionId == null ? undefined : await definitions.get(accountId, open.definitionId)
  if (open && itsJob) return { definition: itsJob, run: open }
  for (const column of columns) {
    const named = await definitions.findBy(accountId, column, id)
    if (named) return { definition: named }
  }
  throw unknownJob(id)
}
