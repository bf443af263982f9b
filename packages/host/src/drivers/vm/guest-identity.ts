import { randomBytes, randomUUID } from 'node:crypto'
import type { AgentIdentity, AgentNetwork, AgentNetwork6 } from '../../agent/connection.ts'
import { gatewayAddress6 } from '../../network/lease-rules.ts'
import type { TapSlot } from '../../network/sandbox-network.ts'

/** Clock and randomness: clones of a template have the template's. */
export function freshState(): AgentIdentity {
  return { unixTimeNs: BigInt(Date.now()) * 1_000_000n, entropy: randomBytes(64) }
}

/** Everything in the composed root that makes the machine itself. */
export function rootFiles(hostname: string, tap: TapSlot | undefined, resolver: string | undefined): AgentIdentity {
  return {
    hostname,
    hosts: `127.0.0.1\tlocalhost\n${tap?.address ?? '127.0.1.1'}\t${hostname}\n`,
    ...(resolver === undefined ? {} : { resolvConf: `nameserver ${resolver}\n` }),
    machineId: `${randomUUID().replaceAll('-', '')}\n`,
  }
}

export function networkOf(tap: TapSlot): AgentNetwork {
  const { mac, address, prefixLength, gateway, mtu } = tap
  return { mac, address, prefixLength, gateway, mtu }
}

/** A leased IPv6 address, as part of an identity. */
export function leased6(tap: TapSlot | undefined, address: string | undefined): { network6?: AgentNetwork6 } {
  if (tap === undefined || address === undefined) return {}
  return { network6: { address, gateway: gatewayAddress6, gatewayMac: tap.gatewayMac } }
}
