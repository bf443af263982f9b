import { imageInvalid } from './image-invalid.ts'

export const blockBytes = 512

/** One header block of a tar archive as it stands there; text has one character for each byte. */
export interface TarHeader {
  readonly name: string
  readonly type: string
  readonly mode: number
  readonly uid: number
  readonly gid: number
  readonly sizeBytes: number
  /** Seconds since 1970. */
  readonly mtime: number
  readonly linkName: string
  readonly deviceMajor: number
  readonly deviceMinor: number
}

/** Reads a header (POSIX.1-1988 ustar; GNU's magic and base-256 numbers). Undefined when its checksum is wrong. Throws 'image_invalid' for numbers that are none. */
export function readTarHeader(block: Buffer): TarHeader | undefined {
  if (!hasChecksum(block)) return undefined
  const own = text(block, 0, 100)
  // GNU's magic is `ustar  `: it has times where ustar has the first part of the name.
  const isUstar = block.toString('latin1', 257, 263) === 'ustar\0'
  const prefix = isUstar ? text(block, 345, 500) : ''
  const name = prefix === '' ? own : `${prefix}/${own}`
  const number = (what: string, from: number, to: number) => readNumber(block.subarray(from, to), what, name)
  const type = block.toString('latin1', 156, 157)
  const isDevice = type === '3' || type === '4'
  return {
    name,
    type,
    mode: number('mode', 100, 108),
    uid: number('owner', 108, 116),
    gid: number('group', 116, 124),
    sizeBytes: number('size', 124, 136),
    mtime: number('time', 136, 148),
    linkName: text(block, 157, 257),
    deviceMajor: isDevice ? number('device number', 329, 337) : 0,
    deviceMinor: isDevice ? number('device number', 337, 345) : 0,
  }
}

function text(block: Buffer, from: number, to: number): string {
  const end = block.indexOf(0, from)
  return block.toString('latin1', from, end < 0 || end > to ? to : end)
}

/** The sum of all bytes with the field itself as blanks; some old programs added signed bytes. */
function hasChecksum(block: Buffer): boolean {
  const match = /^[ 0]*([0-7]+)[ \0]*$/.exec(block.toString('latin1', 148, 156))
  if (match === null) return false
  let unsigned = 8 * 32
  let signed = 8 * 32
  for (let at = 0; at < blockBytes; at++) {
    if (at >= 148 && at < 156) continue
    unsigned += block[at] as number
    signed += block.readInt8(at)
  }
  const sum = Number.parseInt(match[1] as string, 8)
  return sum === unsigned || sum === signed
}

function readNumber(field: Buffer, what: string, entry: string): number {
  const first = field[0] as number
  if (first & 0x80) {
    let value = first === 0xff ? -1n : BigInt(first & 0x7f)
    for (const byte of field.subarray(1)) value = (value << 8n) | BigInt(byte)
    const number = Number(value)
    if (!Number.isSafeInteger(number)) throw imageInvalid(`its ${what} is no number that can be`, entry)
    return number
  }
  const digits = field
    .toString('latin1')
    .replace(/^[ \0]+/, '')
    .replace(/[ \0].*$/s, '')
  if (digits === '') return 0
  if (!/^[0-7]+$/.test(digits)) throw imageInvalid(`its ${what} is no number`, entry)
  return Number.parseInt(digits, 8)
}
