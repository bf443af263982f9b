import { generateSshKey, MagsError, type Visibility } from '@mags/protocol'
import { sql } from 'kysely'
import type { Job } from '../jobs/job.ts'
import type { Database } from '../state/database.ts'
import type { GroupCommit } from '../state/group-commit.ts'
import { timestamp } from '../state/timestamp.ts'
import { ownerOf } from './owner.ts'
import type { SecretKey } from './secret-key.ts'

/** How jobs of one owner are reached. */
export interface Access {
  readonly visibility: Visibility
  readonly sshPort: number | null
  /** `ssh-ed25519 AAAA…` */
  readonly sshPublicKey: string | null
}

/** An SSH port of an owner with its key; the private one in OpenSSH's format. */
export interface SshAccess {
  readonly port: number
  readonly publicKey: string
  readonly privateKey: string
}

export interface AccessStoreDeps {
  readonly database: Database
  readonly commits: GroupCommit
  readonly secretKey: SecretKey
  readonly clock: () => number
  /** The first of the ports that are handed out. */
  readonly portFirst: number
}

export const noAccess: Access = { visibility: 'public', sshPort: null, sshPublicKey: null }
/** From the first on. */
const portCount = 10_000

/** All SQL about how jobs are reached. An owner has a row once anything of it differs from {@link noAccess}. */
export class AccessStore {
  readonly #deps: AccessStoreDeps

  constructor(deps: AccessStoreDeps) {
    this.#deps = deps
  }

  async find(owner: string): Promise<Access> {
    const row = await this.#deps.database
      .selectFrom('access')
      .select(['visibility', 'ssh_port', 'ssh_public_key'])
      .where('owner', '=', owner)
      .executeTakeFirst()
    return row ? { visibility: row.visibility, sshPort: row.ssh_port, sshPublicKey: row.ssh_public_key } : noAccess
  }

  /** The owner of a key that was made here. */
  async findOwnerByKey(publicKey: string): Promise<string | undefined> {
    const row = await this.#deps.database.selectFrom('access').select('owner').where('ssh_public_key', '=', publicKey).executeTakeFirst()
    return row?.owner
  }

  async setVisibility(job: Pick<Job, 'requestId' | 'workspaceStorageId'>, visibility: Visibility): Promise<void> {
    const { commits, clock } = this.#deps
    await commits.write((transaction) =>
      transaction
        .insertInto('access')
        .values({ owner: ownerOf(job), visibility, created_at: timestamp(clock()) })
        .onConflict((conflict) => conflict.column('owner').doUpdateSet({ visibility }))
        .execute(),
    )
  }

  /** The port and key of an owner, made when it has none. Rejects with MagsError('no_capacity') when all ports are taken. */
  async sshOf(owner: string): Promise<SshAccess> {
    const { secretKey, clock, commits, portFirst } = this.#deps
    const known = await this.#readSsh(owner)
    if (known) return known
    const { publicKey, privateKey } = await generateSshKey('')
    const columns = { ssh_public_key: publicKey, ssh_private_key: secretKey.seal(privateKey, owner) }
    await commits.write(async (transaction) => {
      const rows = await transaction.selectFrom('access').select(['owner', 'ssh_port']).where('ssh_port', 'is not', null).orderBy('ssh_port').execute()
      if (rows.some((row) => row.owner === owner)) return
      const taken = new Set(rows.map((row) => row.ssh_port))
      let port = portFirst
      while (taken.has(port)) port++
      if (port >= portFirst + portCount)
        throw new MagsError('no_capacity', `all ${portCount.toLocaleString('en-US')} SSH ports are taken; stop a job or delete a workspace that has one`)
      await transaction
        .insertInto('access')
        .values({ owner, visibility: 'public', ssh_port: port, ...columns, created_at: timestamp(clock()) })
        .onConflict((conflict) => conflict.column('owner').doUpdateSet({ ssh_port: port, ...columns }))
        .execute()
    })
    const made = await this.#readSsh(owner)
    if (made === undefined) throw new MagsError('internal', 'the SSH port was given back meanwhile; try again')
    return made
  }

  /** The job is over and had no workspace: its port may be another one's. */
  async forget(owner: string): Promise<void> {
    await this.#deps.commits.write((transaction) => transaction.deleteFrom('access').where('owner', '=', owner).execute())
  }

  /** What jobs and workspaces had that are gone. */
  async purge(): Promise<void> {
    await this.#deps.commits.write(async (transaction) => {
      const unfinished = sql<boolean>`owner like 'j:%' and not exists (select 1 from jobs where request_id = substr(owner, 3) and status in ('pending', 'running', 'sleeping'))`
      const removed = sql<boolean>`owner like 'w:%' and not exists (select 1 from workspaces where storage_id = substr(owner, 3) and removed_at is null)`
      await transaction.deleteFrom('access').where(unfinished).execute()
      await transaction.deleteFrom('access').where(removed).execute()
    })
  }

  async #readSsh(owner: string): Promise<SshAccess | undefined> {
    const row = await this.#deps.database
      .selectFrom('access')
      .select(['ssh_port', 'ssh_public_key', 'ssh_private_key'])
      .where('owner', '=', owner)
      .executeTakeFirst()
    if (row?.ssh_port == null || row.ssh_public_key === null || row.ssh_private_key === null) return undefined
    return { port: row.ssh_port, publicKey: row.ssh_public_key, privateKey: this.#deps.secretKey.open(row.ssh_private_key, owner) }
  }
}
