import type { Requester } from '../http/requester.ts'
import type { CallOptions, PageOptions } from '../jobs/status.ts'
import type { DoneWire, UrlAliasListWire, UrlAliasWire } from '../wire/answers.ts'
import { type Answer, toWire } from '../wire/names.ts'

export interface UrlAliasOptions extends CallOptions {
  /** A host name of your own that means the same; its DNS must lead to the server. */
  domain?: string | undefined
}

const path = '/mags-url-aliases'

/** Makes `<subdomain>.<apps domain>` lead to whatever job has the workspace. */
export async function createUrlAlias(
  requester: Requester,
  subdomain: string,
  workspaceId: string,
  options: UrlAliasOptions = {},
): Promise<Answer<UrlAliasWire>> {
  const { signal, ...fields } = options
  const body = { subdomain, ...toWire({ workspaceId, ...fields }) }
  const headers = { 'idempotency-key': crypto.randomUUID() }
  return await requester.json<UrlAliasWire>({ method: 'POST', path, body, headers, repeatable: true, signal })
}

/** Newest first. */
export async function listUrlAliases(requester: Requester, options: PageOptions = {}): Promise<Answer<UrlAliasListWire>> {
  const { signal, ...paging } = options
  return await requester.json<UrlAliasListWire>({ method: 'GET', path, query: toWire(paging) as Record<string, number>, signal })
}

/** Its name is free at once. */
export async function deleteUrlAlias(requester: Requester, subdomain: string, options: CallOptions = {}): Promise<Answer<DoneWire>> {
  if (subdomain === '') throw new TypeError('The subdomain of an alias must not be empty.')
  return await requester.json<DoneWire>({ method: 'DELETE', path: `${path}/${encodeURIComponent(subdomain)}`, signal: options.signal })
}
