import { generateSshKey, MagsError, type SshKey, type Visibility } from '@mags/protocol'
import { sql, type Transaction } from 'kysely'
import type { Job } from '../jobs/job.ts'
import type { Database } from '../state/database.ts'
import type { GroupCommit } from '../state/group-commit.ts'
import type { Tables } from '../state/schema.ts'
import { timestamp } from '../state/timestamp.ts'
import { ownerOf } from './owner.ts'
import type { SecretKey } from './secret-key.ts'

/** How jobs of one owner are reached. */
export interface Access {
  readonly visibility: Visibility
  readonly sshPort: number | null
  /** Of the key that was made here: `ssh-ed25519 AAAA…` */
  readonly sshPublicKey: string | null
  /** Others that open it: type and key each. */
  readonly authorizedKeys: readonly string[]
}

/** What an owner is opened with: a key that was made for it, or keys of the user (type and key each). */
export type SshKeys = { readonly made: SshKey } | { readonly authorized: readonly string[] }

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
  /** Whether no other program of the machine has it. */
  readonly portIsFree: (port: number) => Promise<boolean>
}

export const noAccess: Access = { visibility: 'public', sshPort: null, sshPublicKey: null, authorizedKeys: [] }
/** From the first on. */
const portCount = 10_000
/** How many owners of one key are looked at. */
const mostOwners = 1000

/** All SQL about how jobs are reached. An owner has a row once anything of it differs from {@link noAccess}. */
export class AccessStore {
  readonly #deps: AccessStoreDeps

  constructor(deps: AccessStoreDeps) {
    this.#deps = deps
  }

  async find(owner: string): Promise<Access> {
    const row = await this.#deps.database
      .selectFrom('access')
      .select(['visibility', 'ssh_port', 'ssh_public_key', 'authorized_keys'])
      .where('owner', '=', owner)
      .executeTakeFirst()
    if (row === undefined) return noAccess
    return { visibility: row.visibility, sshPort: row.ssh_port, sshPublicKey: row.ssh_public_key, authorizedKeys: readKeys(row.authorized_keys) }
  }

  /** The SSH ports of those that have one. */
  async sshPorts(owners: readonly string[]): Promise<Map<string, number>> {
    if (owners.length === 0) return new Map()
    const rows = await this.#deps.database.selectFrom('access').select(['owner', 'ssh_port']).where('owner', 'in', owners).execute()
    return new Map(rows.flatMap(({ owner, ssh_port: port }) => (port === null ? [] : [[owner, port] as const])))
  }

  /** The owners that a key opens, `ssh-ed25519 AAAA…`: one that was made here is of one only. */
  async findOwnersByKey(publicKey: string): Promise<string[]> {
    const { database } = this.#deps
    const made = await database.selectFrom('access').select('owner').where('ssh_public_key', '=', publicKey).execute()
    if (made.length > 0) return made.map(({ owner }) => owner)
    const rows = await database
      .selectFrom('access')
      .select(['owner', 'authorized_keys'])
      .where('authorized_keys', 'is not', null)
      // What is found by it is compared below.
      .where('authorized_keys', 'like', `%${publicKey}%`)
      .limit(mostOwners)
      .execute()
    return rows.filter((row) => readKeys(row.authorized_keys).includes(publicKey)).map(({ owner }) => owner)
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

  /** The port and key of an owner, made when it has none. Rejects with MagsError 'no_capacity' when all ports are taken, 'not_available' when it has keys, but no private one here. */
  async sshOf(owner: string): Promise<SshAccess> {
    const known = await this.#readSsh(owner)
    if (known) return known
    const made = await generateSshKey('')
    await this.#deps.commits.write((transaction) => this.giveSsh(transaction, owner, { made }))
    const given = await this.#readSsh(owner)
    if (given === undefined) throw new MagsError('internal', 'the SSH port was given back meanwhile; try again')
    return given
  }

  /** An owner that has no port gets one and these keys, in a transaction of the caller; the port. Rejects with MagsError('no_capacity') when all ports are taken. */
  async giveSsh(transaction: Transaction<Tables>, owner: string, keys: SshKeys): Promise<number> {
    const { secretKey, clock } = this.#deps
    const rows = await transaction.selectFrom('access').select(['owner', 'ssh_port']).where('ssh_port', 'is not', null).orderBy('ssh_port').execute()
    const known = rows.find((row) => row.owner === owner)?.ssh_port
    if (known != null) return known
    const port = await this.#freePort(new Set(rows.map((row) => row.ssh_port)))
    const columns =
      'made' in keys
        ? { ssh_public_key: withoutComment(keys.made.publicKey), ssh_private_key: secretKey.seal(keys.made.privateKey, owner) }
        : { authorized_keys: JSON.stringify(keys.authorized) }
    await transaction
      .insertInto('access')
      .values({ owner, visibility: 'public', ssh_port: port, ...columns, created_at: timestamp(clock()) })
      .onConflict((conflict) => conflict.column('owner').doUpdateSet({ ssh_port: port, ...columns }))
      .execute()
    return port
  }

  /** The private key that was made for an owner, in a transaction of the caller; `erase`: it is not here any more once that is committed. Undefined when there is none. */
  async takePrivateKey(transaction: Transaction<Tables>, owner: string, { erase }: { readonly erase: boolean }): Promise<string | undefined> {
    const query = transaction.selectFrom('access').select('ssh_private_key').where('owner', '=', owner)
    const sealed = (await query.executeTakeFirst())?.ssh_private_key
    if (sealed == null) return undefined
    if (erase) {
      const erased = transaction.updateTable('access').set({ ssh_private_key: null }).where('owner', '=', owner)
      const { numUpdatedRows } = await erased.where('ssh_private_key', '=', sealed).executeTakeFirst()
      // Somebody else took it at the same time.
      if (numUpdatedRows === 0n) return undefined
    }
    return this.#deps.secretKey.open(sealed, owner)
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

  /** The first that nobody was given and no other program listens on. */
  async #freePort(given: ReadonlySet<number | null>): Promise<number> {
    const { portFirst, portIsFree } = this.#deps
    for (let port = portFirst; port < portFirst + portCount; port++) if (!given.has(port) && (await portIsFree(port))) return port
    throw new MagsError('no_capacity', `all ${portCount.toLocaleString('en-US')} SSH ports are taken; stop a job or delete a workspace that has one`)
  }

  async #readSsh(owner: string): Promise<SshAccess | undefined> {
    const row = await this.#deps.database
      .selectFrom('access')
      .select(['ssh_port', 'ssh_public_key', 'ssh_private_key', 'authorized_keys'])
      .where('owner', '=', owner)
      .executeTakeFirst()
    if (row?.ssh_port == null) return undefined
    if (row.ssh_private_key !== null && row.ssh_public_key !== null)
      return { port: row.ssh_port, publicKey: row.ssh_public_key, privateKey: this.#deps.secretKey.open(row.ssh_private_key, owner) }
    if (row.authorized_keys !== null)
      throw new MagsError(
        'not_available',
        `it opens to the SSH keys that it was made with, and no other is made for it; connect to port ${row.ssh_port} with one of those`,
      )
    throw new MagsError('not_available', `its private SSH key was handed out once, and is not here any more; connect to port ${row.ssh_port} with that file`)
  }
}

/** What keys are compared by: type and key. */
const withoutComment = (publicKey: string) => publicKey.split(' ', 2).join(' ')
const readKeys = (json: string | null): readonly string[] => (json === null ? [] : (JSON.parse(json) as string[]))
