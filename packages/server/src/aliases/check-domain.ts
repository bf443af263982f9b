import { MagsError } from '@mags/protocol'

/** Host names that are this server's own. */
export interface OwnHosts {
  /** Address whose subdomains are jobs; undefined: there are none (yet). */
  readonly appsUrlNow: () => string | undefined
  /** Where the API is. */
  readonly publicUrl: string
}

/** A domain of an alias as it is stored: null for none, and for the apps domain itself, which clients may name as the default. Throws MagsError('bad_request') for a name of ours. */
export function checkDomain(domain: string | null | undefined, { appsUrlNow, publicUrl }: OwnHosts): string | null {
  if (domain == null) return null
  const appsUrl = appsUrlNow()
  const apps = appsUrl === undefined ? undefined : new URL(appsUrl).hostname
  if (domain === apps) return null
  if (apps !== undefined && domain.endsWith(`.${apps}`))
    throw new MagsError('bad_request', `domain: names below ${apps} are given by subdomain; leave domain out`)
  const api = new URL(publicUrl).hostname
  if (domain === api) throw new MagsError('bad_request', `domain: ${domain} is where the API of this server is; choose another`)
  // A page there could set cookies for the API's own pages, or for all jobs (RFC 6265, 5.1.3).
  const near = [api, ...(apps === undefined ? [] : [apps])].find((own) => own.endsWith(`.${domain}`) || domain.endsWith(`.${own}`))
  if (near !== undefined) throw new MagsError('bad_request', `domain: ${domain} belongs to the same names as ${near} of this server; choose another`)
  return domain
}
