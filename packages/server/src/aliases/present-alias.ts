import type { UrlAliasAnswer } from '@mags/protocol'
import type { UrlAlias } from './url-alias.ts'

/** An alias as the API gives it. `appsUrl` is the address whose subdomains are jobs. */
export function presentAlias(alias: UrlAlias, appsUrl: string | undefined): UrlAliasAnswer {
  return {
    subdomain: alias.subdomain,
    workspace_id: alias.workspaceId,
    domain: alias.domain,
    url: appsUrl === undefined ? null : urlOf(alias.subdomain, appsUrl),
    created_at: alias.createdAt,
    updated_at: alias.updatedAt,
  }
}

function urlOf(subdomain: string, appsUrl: string): string {
  const { protocol, host } = new URL(appsUrl)
  return `${protocol}//${subdomain}.${host}`
}
