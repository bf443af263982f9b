import { type HostCapabilities, type IsolationWish, MagsError } from '@mags/protocol'

/** The prefixes that a job can have addresses of. Throws MagsError 'not_available' when there is none. */
export function checkIpLease(host: Pick<HostCapabilities, 'addressPrefixes' | 'default'>, wish: IsolationWish): readonly string[] {
  if (host.addressPrefixes.length === 0)
    throw new MagsError(
      'not_available',
      'ip_lease: this server has no addresses to lease; its operator sets MAGS_IP_PREFIXES to prefixes that are routed to it',
    )
  const isContainer = wish === 'container' || (wish === 'auto' && host.default === 'container')
  const usable = isContainer ? host.addressPrefixes : host.addressPrefixes.filter((prefix) => !prefix.includes(':'))
  if (usable.length > 0) return usable
  throw new MagsError('not_available', 'ip_lease: virtual machines get IPv4 addresses only, and this server has none to lease; ask for isolation "container"')
}
