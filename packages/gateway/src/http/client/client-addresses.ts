import { BlockList, isIP, type Socket } from 'node:net'
import { MagsError } from '@mags/protocol'
import type { ClientAddress } from '../request/client-request.ts'

/** Reads where a connection came from; `trustedProxies` are addresses or CIDR ranges. Throws MagsError 'bad_request' for one that is neither. */
export function clientAddresses(trustedProxies: readonly string[]): (socket: Socket) => ClientAddress {
  const trusted = new BlockList()
  for (const range of trustedProxies) addRange(trusted, range)
  return (socket) => {
    const address = (socket.remoteAddress ?? '').replace(/^::ffff:(?=\d+\.)/, '').replace(/%.*$/, '')
    const family = address.includes(':') ? 'ipv6' : 'ipv4'
    return {
      address,
      trusted: address !== '' && trusted.check(address, family),
      loopback: address === '::1' || address.startsWith('127.'),
      localPort: socket.localPort ?? 0,
    }
  }
}

function addRange(list: BlockList, range: string): void {
  const [address = '', prefix, extra] = range.split('/')
  const version = isIP(address)
  const bits = version === 6 ? 128 : 32
  const length = prefix === undefined ? bits : /^\d{1,3}$/.test(prefix) ? Number(prefix) : -1
  if (version === 0 || extra !== undefined || length < 0 || length > bits) {
    throw new MagsError('bad_request', `trusted proxy ${JSON.stringify(range)} is neither an address nor a range such as 10.0.0.0/8`)
  }
  list.addSubnet(address, length, version === 6 ? 'ipv6' : 'ipv4')
}
