import { MagsError } from '@mags/protocol'

/** What came from the other end cannot have been said by our layer worker. The session is over. */
export class LayerProtocolError extends MagsError {
  constructor(message: string) {
    super('sandbox_failed', `the layer worker broke its protocol: ${message}`)
    this.name = 'LayerProtocolError'
  }
}
