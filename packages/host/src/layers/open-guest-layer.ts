import type { AgentConnection } from '../agent/connection.ts'
import type { LayerSession } from './layer-session.ts'
import { StreamLayerSession } from './stream-layer-session.ts'

/**
 * A session about what a guest has changed, with a worker inside it. Whatever ends all processes of the guest ends the session, too, and so does detaching its disk. A guest that
 * does not answer is given up after minutes. `only`: the one name at the top that is looked at, with what is below it.
 */
export async function openGuestLayer(agent: AgentConnection, only?: string): Promise<LayerSession> {
  return StreamLayerSession.open(await agent.dialLayerWorker(), '', undefined, only)
}
