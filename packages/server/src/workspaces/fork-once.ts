import { MagsError, type WorkspaceAnswer } from '@mags/protocol'
import { firstAnswer, idempotencyKeyOf, keyLifeMs } from '../jobs/idempotency-key.ts'
import type { IdempotencyStore } from '../jobs/idempotency-store.ts'
import { timestamp } from '../state/timestamp.ts'
import { forkWorkspace } from './fork-workspace.ts'
import type { WorkspaceDeps } from './operate-workspace.ts'
import { presentWorkspace } from './present-workspace.ts'
import type { Workspace } from './workspace.ts'

export interface ForkOnceDeps extends WorkspaceDeps {
  readonly idempotency: IdempotencyStore
}

/** A fork of which a repeated request with the same Idempotency-Key gets the first answer. Rejects as `forkWorkspace`, and with MagsError('idempotency_conflict'). */
export async function forkOnce(
  deps: ForkOnceDeps,
  from: Workspace,
  to: { readonly workspaceId: string; readonly version?: number | undefined },
  idempotencyKey: string | undefined,
): Promise<WorkspaceAnswer> {
  const { idempotency } = deps
  const { accountId } = from
  const key = idempotencyKeyOf({ accountId, body: { fork: from.workspaceId, ...to }, idempotencyKey })
  if (key === undefined) return presentWorkspace(await forkWorkspace(deps, from, to))
  const now = deps.clock()
  const notBefore = timestamp(now - keyLifeMs)
  const answerGiven = async () => {
    const earlier = await idempotency.find(accountId, key.key, notBefore)
    return earlier && firstAnswer<WorkspaceAnswer>(key, earlier)
  }
  const given = await answerGiven()
  if (given) return given
  try {
    const fork = await forkWorkspace(deps, from, to, async (transaction, workspace) => {
      const taken = await idempotency.claim(transaction, key, JSON.stringify(presentWorkspace(workspace)), timestamp(now), notBefore)
      if (taken) throw new MagsError('idempotency_conflict', 'Idempotency-Key: this key was used by a request that came at the same time')
    })
    return presentWorkspace(fork)
  } catch (error) {
    // The same request may have been here at the same time, and have won.
    const first = error instanceof MagsError && (error.code === 'already_exists' || error.code === 'idempotency_conflict') ? await answerGiven() : undefined
    if (first) return first
    throw error
  }
}
