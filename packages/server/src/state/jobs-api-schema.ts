import type { IsolationWish } from '@mags/protocol'
import type { Generated } from 'kysely'

/** Tables of the Jobs API, microVMs and images; rules as in schema.ts. */

/** What POST /jobs makes; each of its runs is a row of `jobs`. */
export interface JobDefinitionsTable {
  /** Order of creation. */
  seq: Generated<number>
  /** The request id of its first run. */
  id: string
  account_id: string
  /** Who made it: the id of a token. */
  user_id: string
  name: string
  description: string | null
  script_type: 'inline'
  script: string
  /** JSON object: what else its runs are made of. */
  fields: string
  workspace_id: string | null
  template_id: string | null
  template_revision: number | null
  created_at: string
  updated_at: string
}

export interface JobTemplatesTable {
  /** Order of creation. */
  seq: Generated<number>
  id: string
  account_id: string
  user_id: string
  name: string
  description: string | null
  script_type: 'inline'
  vcpus: number
  memory_mb: number
  latest_revision: number
  created_at: string
  updated_at: string
}

/** Kept when their template is deleted: jobs were made of them. */
export interface JobTemplateRevisionsTable {
  id: string
  template_id: string
  /** From 1 up, without gaps. */
  revision: number
  script: string
  /** JSON object. */
  environment: string
  comment: string | null
  created_at: string
  created_by: string
}

export interface MicrovmsTable {
  /** Order of creation. */
  seq: Generated<number>
  id: string
  account_id: string
  name: string
  wish: 'running' | 'stopped' | 'deleted'
  /** The job that it is to run as; null while one is to be made. */
  request_id: string | null
  error: string | null
  cpu: number
  memory_mb: number
  disk_gb: number
  image: string
  image_digest: string
  isolation_wish: IsolationWish
  init: number
  ip_lease: number
  port: number
  workspace_id: string
  key_generated: number
  key_downloaded_at: string | null
  created_at: string
  updated_at: string
}

export interface IpLeasesTable {
  /** As `LeasedAddresses` has it. */
  address: string
  request_id: string
  account_id: string
  created_at: string
  /** Free again, but not yet for the next one when there is another. */
  released_at: string | null
}

/** An image that is being made, or was. */
export interface ImageTasksTable {
  /** Order of arrival. */
  seq: Generated<number>
  id: string
  account_id: string
  /** Of the image. */
  name: string
  kind: 'recipe' | 'dockerfile' | 'registry' | 'archive'
  reference: string
  status: 'running' | 'completed' | 'failed'
  digest: string | null
  error: string | null
  created_at: string
  completed_at: string | null
}
