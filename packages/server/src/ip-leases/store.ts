import type { Transaction } from 'kysely'
import type { Database } from '../state/database.ts'
import type { GroupCommit } from '../state/group-commit.ts'
import type { Tables } from '../state/schema.ts'

/** Gives back what a job has, in the transaction that ends it. The rows stay for a while, see `leaseAddresses`. `now`: RFC 3339. */
export async function releaseAddresses(transaction: Transaction<Tables>, requestId: string, now: string): Promise<void> {
  await transaction.updateTable('ip_leases').set({ released_at: now }).where('request_id', '=', requestId).where('released_at', 'is', null).execute()
}

/** Gives back what jobs have that are over, or were never stored, and forgets what was released before `before`. */
export function purgeLeases(commits: GroupCommit, { now, before }: { readonly now: string; readonly before: string }): Promise<void> {
  return commits.write(async (transaction) => {
    const live = transaction.selectFrom('jobs').select('request_id').where('status', 'in', ['pending', 'running', 'sleeping'])
    await transaction.updateTable('ip_leases').set({ released_at: now }).where('released_at', 'is', null).where('request_id', 'not in', live).execute()
    await transaction.deleteFrom('ip_leases').where('released_at', '<', before).execute()
  })
}

/** Addresses that jobs have, with who has them. */
export async function listLeases(database: Database): Promise<{ address: string; requestId: string; accountId: string }[]> {
  const rows = await database.selectFrom('ip_leases').selectAll().where('released_at', 'is', null).orderBy('address').execute()
  return rows.map((row) => ({ address: row.address, requestId: row.request_id, accountId: row.account_id }))
}
