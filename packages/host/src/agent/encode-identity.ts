import { isIPv4, isIPv6 } from 'node:net'
import { MagsError } from '@mags/protocol'
import ipaddr from 'ipaddr.js'
import type { AgentIdentity } from './connection.ts'
import type { PayloadWriter } from './payload-writer.ts'

/** The arguments of IDENTITY; absent parts are left alone by the agent. @throws MagsError 'bad_request' for an address that is none. */
export function writeIdentity(writer: PayloadWriter, identity: AgentIdentity) {
  writer
    .u64(identity.unixTimeNs ?? 0)
    .blob(identity.entropy ?? new Uint8Array())
    .string(identity.hostname ?? '')
    .string(identity.hosts ?? '')
    .string(identity.resolvConf ?? '')
    .string(identity.machineId ?? '')
  const { network, network6 } = identity
  if (network === undefined) writer.u8(0)
  else
    writer
      .u8(1)
      .bytes(macBytes(network.mac))
      .bytes(addressBytes(network.address))
      .u8(network.prefixLength)
      .bytes(addressBytes(network.gateway))
      .u16(network.mtu)
  // Agents of earlier releases end here.
  if (network6 !== undefined) writer.u8(1).bytes(address6Bytes(network6.address)).bytes(address6Bytes(network6.gateway)).bytes(macBytes(network6.gatewayMac))
}

/** A UUID's 16 bytes in the order they are written. */
export function uuidBytes(uuid: string): Buffer {
  const hex = uuid.replaceAll('-', '')
  if (!/^[0-9a-f]{32}$/i.test(hex)) throw new MagsError('bad_request', `'${uuid}' is not a UUID`)
  return Buffer.from(hex, 'hex')
}

function macBytes(mac: string): Buffer {
  if (!/^[0-9a-f]{2}(:[0-9a-f]{2}){5}$/i.test(mac)) throw new MagsError('bad_request', `'${mac}' is not a MAC address`)
  return Buffer.from(mac.replaceAll(':', ''), 'hex')
}

function addressBytes(address: string): Buffer {
  if (!isIPv4(address)) throw new MagsError('bad_request', `'${address}' is not an IPv4 address`)
  return Buffer.from(address.split('.').map(Number))
}

function address6Bytes(address: string): Buffer {
  if (!isIPv6(address) || address.includes('%')) throw new MagsError('bad_request', `'${address}' is not an IPv6 address`)
  return Buffer.from(ipaddr.IPv6.parse(address).toByteArray())
}
