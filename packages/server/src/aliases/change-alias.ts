import { type CreateUrlAliasRequest, MagsError, type UpdateUrlAliasRequest } from '@mags/protocol'
import type { Transaction } from 'kysely'
import type { GroupCommit } from '../state/group-commit.ts'
import type { Tables } from '../state/schema.ts'
import { timestamp } from '../state/timestamp.ts'
import type { WorkspaceStore } from '../workspaces/store.ts'
import { checkDomain, type OwnHosts } from './check-domain.ts'
import type { KnownAliases } from './known-aliases.ts'
import type { AliasStore } from './store.ts'
import type { UrlAlias } from './url-alias.ts'

export interface ChangeAliasDeps extends OwnHosts {
  readonly aliasStore: AliasStore
  readonly aliases: KnownAliases
  readonly workspaces: WorkspaceStore
  readonly commits: GroupCommit
  readonly clock: () => number
}

export const mostAliases = 1000

/** Within a transaction of the caller. Throws MagsError 'not_found' (workspace), 'already_exists', 'bad_request' (a host name of ours), 'rate_limited' (too many). */
export async function createAlias(
  deps: ChangeAliasDeps,
  transaction: Transaction<Tables>,
  accountId: string,
  request: CreateUrlAliasRequest,
): Promise<UrlAlias> {
  const { aliasStore } = deps
  const now = timestamp(deps.clock())
  const domain = checkDomain(request.domain, deps)
  await requireWorkspace(deps, transaction, accountId, request.workspace_id)
  if ((await aliasStore.count(accountId, transaction)) >= mostAliases)
    throw new MagsError('rate_limited', `an account may have ${mostAliases.toLocaleString('en-US')} aliases; remove one first`)
  const alias = { subdomain: request.subdomain, accountId, workspaceId: request.workspace_id, domain, createdAt: now, updatedAt: now }
  if (await aliasStore.insert(transaction, alias)) return alias
  throw (await aliasStore.target(alias, transaction)) ? taken('subdomain', alias.subdomain) : taken('domain', domain ?? '')
}

/** Throws MagsError as `createAlias`, and 'not_found' when there is no such alias. */
export async function updateAlias(deps: ChangeAliasDeps, accountId: string, subdomain: string, request: UpdateUrlAliasRequest): Promise<UrlAlias> {
  const { aliasStore, commits } = deps
  const domain = request.domain === undefined ? undefined : checkDomain(request.domain, deps)
  const updated = await commits.write(async (transaction) => {
    if (request.workspace_id !== undefined) await requireWorkspace(deps, transaction, accountId, request.workspace_id)
    if (domain != null) {
      const owner = await aliasStore.ownerOf(domain, transaction)
      if (owner !== undefined && owner !== subdomain) throw taken('domain', domain)
    }
    return await aliasStore.update(
      transaction,
      { accountId, subdomain },
      {
        updatedAt: timestamp(deps.clock()),
        ...(request.workspace_id === undefined ? {} : { workspaceId: request.workspace_id }),
        ...(domain === undefined ? {} : { domain }),
      },
    )
  })
  deps.aliases.drop()
  const alias = updated ? await aliasStore.find(accountId, subdomain) : undefined
  if (alias === undefined) throw unknownAlias(subdomain)
  return alias
}

/** Rejects with MagsError('not_found'). */
export async function removeAlias(deps: ChangeAliasDeps, accountId: string, subdomain: string): Promise<void> {
  const removed = await deps.aliasStore.remove(accountId, subdomain)
  deps.aliases.drop()
  if (!removed) throw unknownAlias(subdomain)
}

export function unknownAlias(subdomain: string): MagsError {
  return new MagsError('not_found', `no alias ${JSON.stringify(subdomain.slice(0, 64))}; 'mags url alias list' shows those there are`)
}

async function requireWorkspace(deps: ChangeAliasDeps, transaction: Transaction<Tables>, accountId: string, workspaceId: string): Promise<void> {
  if (await deps.workspaces.find(accountId, workspaceId, transaction)) return
  throw new MagsError('not_found', `no workspace '${workspaceId}'; 'mags workspace list' shows those there are`)
}

/** Without a word about whose it is. */
function taken(field: string, name: string): MagsError {
  return new MagsError('already_exists', `${field}: ${JSON.stringify(name)} is taken already; choose another`)
}
