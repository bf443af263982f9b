import type { CreateJobRequest } from '@mags/protocol'

/** What else the runs of a job are made of, as it was given: what has a default and was not said is not there. */
export type DefinitionFields = Partial<Omit<CreateJobRequest, 'name' | 'script' | 'description' | 'type' | 'script_type'>>

/** A job of the Jobs API: what its runs are made of. Its id is the request id of its first run. */
export interface JobDefinition {
  readonly id: string
  readonly accountId: string
  /** Id of the token it was made with. */
  readonly userId: string
  readonly name: string
  readonly description: string | null
  readonly script: string
  readonly fields: DefinitionFields
  /** Null unless it is stateful. */
  readonly workspaceId: string | null
  readonly templateId: string | null
  readonly templateRevision: number | null
  readonly createdAt: string
  readonly updatedAt: string
}

/** What is kept of the workspace of a stateful job. */
export const statefulScope = '/workspace'

/** What is not to be stored: members that are null are those with their default. */
export function withoutNulls<T extends object>(members: T): { [K in keyof T]?: NonNullable<T[K]> } {
  return Object.fromEntries(Object.entries(members).filter(([, value]) => value !== null && value !== undefined)) as { [K in keyof T]?: NonNullable<T[K]> }
}
