import { randomBytes, randomUUID } from 'node:crypto'
import type { AgentIdentity, AgentNetwork } from '../../agent/connection.ts'
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
