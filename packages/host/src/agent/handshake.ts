import { decodeHello, type Hello } from './decode-frames.ts'
import { frameType, headerBytes, marker, nonceBytes, receivedPayloadLimit } from './frame-constants.ts'

const versionBytes = 4
/** From the marker to the end of the nonce. */
const headBytes = marker.length + headerBytes + versionBytes + nonceBytes

/** Looks for the marker followed by a HELLO with our nonce; everything before is left over from an earlier connection. Keeps what may still become one, no more. */
export class HelloHunter {
  readonly #nonce: Buffer
  #bytes: Buffer = Buffer.alloc(0)

  constructor(nonce: Buffer) {
    this.#nonce = nonce
  }

  /** The HELLO and what followed it, once it is complete. @throws AgentProtocolError when the HELLO with our nonce is malformed. */
  push(chunk: Buffer): { hello: Hello; rest: Buffer } | undefined {
    this.#bytes = this.#bytes.length === 0 ? chunk : Buffer.concat([this.#bytes, chunk])
    for (;;) {
      const at = this.#bytes.indexOf(marker)
      if (at < 0) {
        this.#bytes = this.#bytes.subarray(Math.max(0, this.#bytes.length - marker.length + 1))
        return undefined
      }
      this.#bytes = this.#bytes.subarray(at)
      if (this.#bytes.length < headBytes) return undefined
      const length = this.#bytes.readUInt32LE(marker.length)
      if (!this.#isOurs(length)) {
        this.#bytes = this.#bytes.subarray(1)
        continue
      }
      const start = marker.length + headerBytes
      if (this.#bytes.length < start + length) return undefined
      return { hello: decodeHello(this.#bytes.subarray(start, start + length)), rest: this.#bytes.subarray(start + length) }
    }
  }

  #isOurs(length: number): boolean {
    const nonceAt = headBytes - nonceBytes
    return (
      length <= receivedPayloadLimit &&
      length >= versionBytes + nonceBytes &&
      this.#bytes[marker.length + 4] === frameType.hello &&
      this.#bytes.readUInt32LE(marker.length + 8) === 0 &&
      this.#nonce.equals(this.#bytes.subarray(nonceAt, headBytes))
    )
  }
}
