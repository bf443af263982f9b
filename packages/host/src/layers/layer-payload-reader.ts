import { PayloadReader } from '../wire/payload-reader.ts'
import { LayerProtocolError } from './layer-protocol-error.ts'

/** A payload that a layer worker sent. */
export class LayerPayloadReader extends PayloadReader {
  constructor(bytes: Buffer) {
    super(bytes, (words) => new LayerProtocolError(words))
  }
}
