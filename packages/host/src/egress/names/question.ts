/** A question as it came (RFC 1035, 4.1), read without trust. */
export interface Question {
  readonly id: number
  /** Recursion desired, sent back as it came. */
  readonly recursion: boolean
  /** Lower case, without the dot at its end. Letters, digits, `-` and `_` only. */
  readonly name: string
  readonly type: number
  /** The question section as it came: whoever mixes cases wants them back. */
  readonly section: Buffer
  /** Largest answer by UDP: 512, or what EDNS says (RFC 6891) up to what this network passes whole. */
  readonly maxBytes: number
}

/** What a packet is that is no question we answer: `drop` gets nothing, else a response code. */
export interface BadQuestion {
  readonly id: number
  readonly code: number | 'drop'
}

export const responseCodes = { ok: 0, malformed: 1, failed: 2, noName: 3, notImplemented: 4, refused: 5 } as const
export const recordTypes = { a: 1, cname: 5, aaaa: 28, opt: 41 } as const

const headerBytes = 12
/** What every path carries unbroken (DNS flag day 2020). */
export const largestUdpBytes = 1232
const longestQuestionBytes = 4096

export function readQuestion(packet: Buffer): Question | BadQuestion {
  if (packet.length < headerBytes || packet.length > longestQuestionBytes) return { id: 0, code: 'drop' }
  const id = packet.readUInt16BE(0)
  const flags = packet.readUInt16BE(2)
  if (flags & 0x8000) return { id, code: 'drop' }
  if ((flags >> 11) & 15) return { id, code: responseCodes.notImplemented }
  if (packet.readUInt16BE(4) !== 1 || packet.readUInt16BE(6) !== 0 || packet.readUInt16BE(8) !== 0) return { id, code: responseCodes.malformed }
  const labels: string[] = []
  let at = headerBytes
  for (;;) {
    const length = packet[at]
    // Nothing to point at comes before a question's name, so 64 and up are faults.
    if (length === undefined || length > 63) return { id, code: responseCodes.malformed }
    at += 1
    if (length === 0) break
    const label = packet
      .subarray(at, at + length)
      .toString('latin1')
      .toLowerCase()
    if (label.length !== length) return { id, code: responseCodes.malformed }
    // Others would read as something else once written as text, a dot above all.
    if (!/^[a-z0-9_-]+$/.test(label)) return { id, code: responseCodes.refused }
    labels.push(label)
    at += length
    if (at - headerBytes > 254) return { id, code: responseCodes.malformed }
  }
  if (at + 4 > packet.length) return { id, code: responseCodes.malformed }
  const type = packet.readUInt16BE(at)
  const kind = packet.readUInt16BE(at + 2)
  const section = packet.subarray(headerBytes, at + 4)
  // Whole zones, any record, and the types of other protocols.
  if (kind !== 1 || labels.length === 0 || type === 0 || type === recordTypes.opt || (type >= 128 && type <= 255)) return { id, code: responseCodes.refused }
  return { id, recursion: (flags & 0x0100) !== 0, name: labels.join('.'), type, section, maxBytes: readMaxBytes(packet, at + 4) }
}

/** The first additional record, when it is EDNS. */
function readMaxBytes(packet: Buffer, at: number): number {
  const hasEdns = packet.readUInt16BE(10) > 0 && at + 11 <= packet.length && packet[at] === 0 && packet.readUInt16BE(at + 1) === recordTypes.opt
  return hasEdns ? Math.min(Math.max(packet.readUInt16BE(at + 3), 512), largestUdpBytes) : 512
}
