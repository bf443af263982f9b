import type { Requester } from '../http/requester.ts'
import type { CallOptions } from '../jobs/status.ts'
import type { HealthWire, PoolStatusWire } from '../wire/answers.ts'
import type { Answer } from '../wire/names.ts'

export async function fetchPoolStatus(requester: Requester, options: CallOptions = {}): Promise<Answer<PoolStatusWire>> {
  return await requester.json<PoolStatusWire>({ method: 'GET', path: '/mags-jobs/pool-status', signal: options.signal })
}

/** Works without a token. */
export async function fetchHealth(requester: Requester, options: CallOptions = {}): Promise<Answer<HealthWire>> {
  return await requester.json<HealthWire>({ method: 'GET', path: '/health', signal: options.signal })
}
