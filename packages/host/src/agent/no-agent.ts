import { PassThrough } from 'node:stream'
import { StreamAgentConnection } from './agent-connection.ts'
import type { AgentConnection } from './connection.ts'

/** A connection that was closed from the start, for a sandbox whose agent does not run. */
export function noAgent(): AgentConnection {
  const hello = { version: 0, nonce: Buffer.alloc(0), mode: 'vm', channels: [], boots: false, takesIpv6: false } as const
  const agent = new StreamAgentConnection(new PassThrough(), hello, Buffer.alloc(0))
  agent.close()
  return agent
}
