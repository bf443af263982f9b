import { MagsError } from '@mags/protocol'
import type { Job } from '../jobs/job.ts'
import type { JobDefinition } from './definition.ts'
import type { JobDefinitionStore } from './store.ts'

export interface FindDefinitionDeps {
  readonly definitions: JobDefinitionStore
}

export function unknownJob(id: string): MagsError {
  return new MagsError('not_found', `no job ${JSON.stringify(id.slice(0, 64))}; 'mags job list' shows those there are`)
}

/** The job that a path names: by its id, the id of one of its runs, or its name. Rejects with MagsError('not_found'). */
export async function findDefinition(deps: FindDefinitionDeps, accountId: string, id: string): Promise<JobDefinition> {
  return (await find(deps, accountId, id)).definition
}

/** The run that a path names: by its id, or the newest of the job that is named. Rejects with MagsError('not_found'). */
export async function findRun(deps: FindDefinitionDeps, accountId: string, id: string): Promise<Job> {
  const { definition, run } = await find(deps, accountId, id)
  const found = run ?? (await deps.definitions.newestRun(definition.id))
  if (found === undefined) throw unknownJob(id)
  return found
}

async function find({ definitions }: FindDefinitionDeps, accountId: string, id: string): Promise<{ definition: JobDefinition; run?: Job }> {
  const definition = await definitions.get(accountId, id)
  if (definition) return { definition }
  const run = await definitions.getRun(accountId, id)
  const itsOwn = run?.definitionId == null ? undefined : await definitions.get(accountId, run.definitionId)
  if (run && itsOwn) return { definition: itsOwn, run }
  const named = await definitions.findByName(accountId, id)
  if (named === undefined) throw unknownJob(id)
  return { definition: named }
}
