import { type Answer, decode, encode } from 'dns-packet'
import { largestUdpBytes, type Question, recordTypes, responseCodes } from './question.ts'

/** What a name leads to, found in one answer: its chain of aliases, and the addresses at the end of it. */
export interface Resolution {
  readonly code: number
  readonly aliases: readonly { readonly name: string; readonly target: string }[]
  readonly addresses: readonly string[]
  /** Of the record that ends first. */
  readonly ttlSeconds: number
}

const longestChain = 16
const recursionDesired = 0x0100
/** A day-long answer must not outlive the rule that lets its addresses through. */
export const longestTtlSeconds = 3600
export const shortestGrantSeconds = 5
/** A program may connect at the last moment of what it was told. */
const graceSeconds = 2

export const grantSeconds = (ttlSeconds: number) => Math.min(Math.max(ttlSeconds, shortestGrantSeconds), longestTtlSeconds) + graceSeconds

/** Follows aliases from the name asked for through this answer and no further. Throws for what is not an answer. */
export function readResolution(packet: Buffer, name: string): Resolution {
  const { answers = [], rcode } = decode(packet) as ReturnType<typeof decode> & { readonly rcode?: string }
  const code = (packet[3] ?? responseCodes.failed) & 15
  if (code !== responseCodes.ok || (rcode !== undefined && rcode !== 'NOERROR'))
    return { code: code || responseCodes.failed, aliases: [], addresses: [], ttlSeconds: 0 }
  const aliases: { name: string; target: string }[] = []
  let ttlSeconds = longestTtlSeconds
  let end = name
  while (aliases.length < longestChain) {
    const alias = answers.find((each) => each.type === 'CNAME' && plain(each.name) === end)
    if (alias?.type !== 'CNAME') break
    const target = plain(alias.data)
    if (!isHostName(target)) throw new Error('an alias is not a host name')
    aliases.push({ name: end, target })
    ttlSeconds = Math.min(ttlSeconds, alias.ttl ?? 0)
    end = target
  }
  const found = answers.filter((each) => each.type === 'A' && plain(each.name) === end)
  const addresses = found.flatMap((each) => (each.type === 'A' ? [each.data] : []))
  for (const each of found) if (each.type === 'A') ttlSeconds = Math.min(ttlSeconds, each.ttl ?? 0)
  return { code, aliases, addresses: [...new Set(addresses)].slice(0, 64), ttlSeconds: Math.max(0, ttlSeconds) }
}

/** An answer with no records. */
export function encodeCode(question: Question, code: number, truncated = false): Buffer {
  const header = Buffer.alloc(12)
  header.writeUInt16BE(question.id, 0)
  header.writeUInt16BE(flagsOf(question, code, truncated), 2)
  header.writeUInt16BE(1, 4)
  return Buffer.concat([header, question.section])
}

/** The same to what could not be read. */
export function encodeBadCode(id: number, code: number): Buffer {
  const header = Buffer.alloc(12)
  header.writeUInt16BE(id, 0)
  header.writeUInt16BE(0x8080 | code, 2)
  return header
}

export function encodeResolution(question: Question, resolution: Resolution, addresses: readonly string[]): Buffer {
  const ttl = resolution.ttlSeconds
  const end = resolution.aliases.at(-1)?.target ?? question.name
  const answers: Answer[] = [
    ...resolution.aliases.map(({ name, target }): Answer => ({ type: 'CNAME', name, ttl, data: target })),
    ...addresses.map((address): Answer => ({ type: 'A', name: end, ttl, data: address })),
  ]
  const packet = encode({ type: 'response', id: question.id, flags: 0, questions: [{ type: 'A', name: question.name }], answers })
  packet.writeUInt16BE(flagsOf(question, resolution.code), 2)
  question.section.copy(packet, 12)
  return packet
}

/** Another kind of answer, as it came but for the parts that belong to the one who asked. Throws when it is to something else. */
export function passAnswer(question: Question, packet: Buffer): Buffer {
  const end = 12 + question.section.length
  if (packet.subarray(12, end).toString('latin1').toLowerCase() !== question.section.toString('latin1').toLowerCase())
    throw new Error('an answer to something else')
  const copy = Buffer.from(packet)
  copy.writeUInt16BE(question.id, 0)
  question.section.copy(copy, 12)
  return copy
}

export function encodeQuery(id: number, question: Question): Buffer {
  const header = Buffer.alloc(12)
  header.writeUInt16BE(id, 0)
  header.writeUInt16BE(recursionDesired, 2)
  header.writeUInt16BE(1, 4)
  header.writeUInt16BE(1, 10)
  const labels = question.name.split('.').flatMap((label) => [Buffer.from([label.length]), Buffer.from(label, 'latin1')])
  const tail = Buffer.from([0, question.type >> 8, question.type & 255, 0, 1])
  const edns = Buffer.from([0, 0, recordTypes.opt, largestUdpBytes >> 8, largestUdpBytes & 255, 0, 0, 0, 0, 0, 0])
  return Buffer.concat([header, ...labels, tail, edns])
}

/** QR and RA; RD as it came. */
const flagsOf = (question: Question, code: number, truncated = false) => 0x8080 | (question.recursion ? recursionDesired : 0) | (truncated ? 0x0200 : 0) | code
const plain = (name: string) => name.toLowerCase().replace(/\.$/, '')
const isHostName = (name: string) => name.length <= 253 && /^(?:[a-z0-9_-]{1,63}\.)*[a-z0-9_-]{1,63}$/.test(name)
