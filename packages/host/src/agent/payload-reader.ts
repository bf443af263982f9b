import { PayloadReader as WireReader } from '../wire/payload-reader.ts'
import { AgentProtocolError } from './agent-protocol-error.ts'

/** A payload that an agent sent. */
export class PayloadReader extends WireReader {
  constructor(bytes: Buffer) {
    super(bytes, (words) => new AgentProtocolError(words))
  }
}
