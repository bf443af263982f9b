import { type HostCapabilities, MagsError } from '@mags/protocol'

/** The prefixes that a job can have addresses of. Throws MagsError 'not_available' when there is none. */
export function checkIpLease(host: Pick<HostCapabilities, 'addressPrefixes'>): readonly string[] {
  if (host.addressPrefixes.length === 0)
    throw new MagsError(
      'not_available',
      'ip_lease: this server has no addresses to lease; its operator sets MAGS_IP_PREFIXES to prefixes that are routed to it',
    )
  return host.addressPrefixes
}
