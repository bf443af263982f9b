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
  if (domain === new URL(publicUrl).hostname) throw new MagsError('bad_request', `domain: ${domain} is where the API of this server is; choose another`)
  return domain
}
