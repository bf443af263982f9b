import { type HostCapabilities, MagsError } from '@mags/protocol'
import type { Transaction } from 'kysely'
import type { Tables } from '../state/schema.ts'
import { checkIpLease } from './check-ip-lease.ts'
import { usableAddresses } from './usable-addresses.ts'

export interface Lessee {
  readonly requestId: string
  readonly accountId: string
  /** RFC 3339. */
  readonly createdAt: string
}

export interface AddressesOfJob {
  readonly ipv4Address: string | null
  readonly ipv6Address: string | null
}

/** Addresses come back after some time, and after some load. */
const retryAfterSeconds = 30

/**
 * Takes an address of each kind that this host has prefixes of, in the transaction that stores the job. The primary key lets nobody have one that another has; one that was just released is the last to be handed out again,
 * so that late packets reach no stranger. Rejects with MagsError 'not_available' (no prefix for it), 'no_capacity' (all are taken).
 */
export async function leaseAddresses(transaction: Transaction<Tables>, host: HostCapabilities, lessee: Lessee): Promise<AddressesOfJob> {
  const prefixes = checkIpLease(host)
  const lease = async (isIpv6: boolean) => {
    const own = prefixes.filter((prefix) => prefix.includes(':') === isIpv6)
    return own.length === 0 ? null : await leaseOne(transaction, own, lessee)
  }
  return { ipv4Address: await lease(false), ipv6Address: await lease(true) }
}

async function leaseOne(transaction: Transaction<Tables>, prefixes: readonly string[], lessee: Lessee): Promise<string> {
  const { requestId, accountId, createdAt } = lessee
  const rows = await transaction.selectFrom('ip_leases').select(['address', 'released_at']).execute()
  const known = new Map(rows.map((row) => [row.address, row.released_at]))
  const released: { readonly address: string; readonly at: string }[] = []
  const row = { request_id: requestId, account_id: accountId, created_at: createdAt }
  for (const prefix of prefixes) {
    for (const address of usableAddresses(prefix)) {
      const at = known.get(address)
      if (at != null) released.push({ address, at })
      if (known.has(address)) continue
      const made = await transaction
        .insertInto('ip_leases')
        .values({ address, ...row })
        // Another server may have taken it since we looked.
        .onConflict((conflict) => conflict.column('address').doNothing())
        .executeTakeFirst()
      if (made.numInsertedOrUpdatedRows === 1n) return address
    }
  }
  for (const { address } of released.sort((one, other) => (one.at < other.at ? -1 : 1))) {
    const taken = await transaction
      .updateTable('ip_leases')
      .set({ ...row, released_at: null })
      .where('address', '=', address)
      .where('released_at', 'is not', null)
      .executeTakeFirst()
    if (taken.numUpdatedRows === 1n) return address
  }
  throw new MagsError('no_capacity', `ip_lease: every address of ${prefixes.join(', ')} is taken; one is free again when a job that has one ends`, {
    details: { retry_after_seconds: retryAfterSeconds },
  })
}
