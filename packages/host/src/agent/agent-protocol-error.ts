import { MagsError } from '@mags/protocol'

/** What came up the stream cannot have been sent by our agent. The connection is over and the sandbox must not be trusted with another one. */
export class AgentProtocolError extends MagsError {
  constructor(message: string) {
    super('sandbox_failed', `the sandbox broke the agent protocol: ${message}`)
    this.name = 'AgentProtocolError'
  }
}
