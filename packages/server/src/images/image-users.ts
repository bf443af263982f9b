import { sql } from 'kysely'
import type { Database } from '../state/database.ts'

/** What keeps an image from being taken away. */
export interface ImageUser {
  readonly kind: 'workspace' | 'job' | 'microvm'
  readonly accountId: string
  /** Name, request id, or name. */
  readonly name: string
  /** The version it needs; undefined: what was the newest at `since`, or is now. */
  readonly digest: string | undefined
  readonly since: string | null
}

/** Who needs an image, as the database knows it. */
export class ImageUsers {
  readonly #database: Database

  constructor(database: Database) {
    this.#database = database
  }

  /** Workspaces, jobs that are not over, and microVMs, stopped ones too; of all accounts. */
  async list(name: string): Promise<ImageUser[]> {
    const workspaces = await this.#database
      .selectFrom('workspaces')
      .select(['account_id', 'workspace_id', 'image_digest'])
      .where('image', '=', name)
      .where('removed_at', 'is', null)
      .orderBy('workspace_id')
      .execute()
    const jobs = await this.#database
      .selectFrom('jobs')
      .leftJoin('workspaces', 'workspaces.storage_id', 'jobs.workspace_storage_id')
      .select(['jobs.account_id', 'jobs.request_id', 'jobs.image_digest', 'jobs.started_at', 'workspaces.image_digest as pinned'])
      .where('jobs.image', '=', name)
      .where('jobs.status', 'in', ['pending', 'running', 'sleeping'])
      .orderBy('jobs.seq')
      .execute()
    const microvms = await this.#database
      .selectFrom('microvms')
      .select(['account_id', 'name', 'image_digest'])
      .where('image', '=', name)
      .orderBy('seq')
      .execute()
    return [
      ...workspaces.map((row) => user('workspace', row.account_id, row.workspace_id, row.image_digest)),
      ...jobs.map((row) => user('job', row.account_id, row.request_id, row.image_digest ?? row.pinned, row.started_at)),
      ...microvms.map((row) => user('microvm', row.account_id, row.name, row.image_digest)),
    ]
  }

  /** Jobs of the Jobs API and crons of an account that ask for an image by name. */
  async namedBy(accountId: string, name: string): Promise<{ jobs: string[]; crons: string[] }> {
    const asks = (fields: string) => {
      const { image, rootfs_type: alias } = JSON.parse(fields) as Record<string, unknown>
      return image === name || alias === name
    }
    const mentions = sql<boolean>`fields like ${`%"${name}"%`}`
    const jobs = await this.#database
      .selectFrom('job_definitions')
      .select(['id', 'fields'])
      .where('account_id', '=', accountId)
      .where(mentions)
      .orderBy('seq')
      .execute()
    const crons = await this.#database
      .selectFrom('crons')
      .select(['name', 'fields'])
      .where('account_id', '=', accountId)
      .where(mentions)
      .orderBy('seq')
      .execute()
    return {
      jobs: jobs.filter(({ fields }) => asks(fields)).map(({ id }) => id),
      crons: crons.filter(({ fields }) => asks(fields)).map((cron) => cron.name),
    }
  }
}

function user(kind: ImageUser['kind'], accountId: string, name: string, digest: string | null, since: string | null = null): ImageUser {
  return { kind, accountId, name, digest: digest ?? undefined, since }
}
