import type { TarEntry } from './tar-entry.ts'
import { TarError } from './tar-error.ts'

/** pax (POSIX.1-2024, "pax", ustar interchange format): blocks of 512 bytes, numbers as octal text. */
export const blockBytes = 512

/** A header block as it stands, before extended headers are laid over it. */
export interface RawHeader {
  readonly typeFlag: string
  readonly path: string
  readonly target: string
  readonly mode: number
  readonly modifiedAt: number
  readonly sizeBytes: number
}

/** Undefined for a block of zeros, two of which end an archive. Throws TarError for what is not a header. */
export function readHeader(block: Buffer): RawHeader | undefined {
  if (block.every((byte) => byte === 0)) return undefined
  const magic = block.toString('latin1', 257, 263)
  // `ustar\0` by the standard, `ustar ` by GNU.
  if (magic !== 'ustar\0' && magic !== 'ustar ') throw new TarError('The archive is damaged: a header is missing where one belongs.')
  if (octal(block, 148, 8) !== checksum(block)) throw new TarError('The archive is damaged: the checksum of a header is wrong.')
  const name = field(block, 0, 100)
  const prefix = magic === 'ustar\0' ? field(block, 345, 155) : ''
  return {
    typeFlag: block.toString('latin1', 156, 157),
    path: prefix === '' ? name : `${prefix}/${name}`,
    target: field(block, 157, 100),
    mode: octal(block, 100, 8) & 0o7777,
    modifiedAt: octal(block, 136, 12),
    sizeBytes: octal(block, 124, 12),
  }
}

/** The header of an entry whose path and target fit. */
export function writeHeader(typeFlag: string, entry: Pick<TarEntry, 'path' | 'target' | 'mode' | 'modifiedAt' | 'sizeBytes'>): Buffer {
  const block = Buffer.alloc(blockBytes)
  block.write(entry.path, 0, 100, 'latin1')
  const put = (value: number, at: number, length: number) => block.write(`${value.toString(8).padStart(length - 1, '0')}\0`, at, length, 'latin1')
  put(entry.mode & 0o7777, 100, 8)
  put(0, 108, 8)
  put(0, 116, 8)
  put(Math.min(entry.sizeBytes, maxOctal), 124, 12)
  put(Math.min(Math.max(0, Math.floor(entry.modifiedAt)), maxOctal), 136, 12)
  block.write(typeFlag, 156, 1, 'latin1')
  block.write(entry.target, 157, 100, 'latin1')
  block.write('ustar\u000000', 257, 8, 'latin1')
  block.write(`${checksum(block).toString(8).padStart(6, '0')}\0 `, 148, 8, 'latin1')
  return block
}

/** The greatest size that a header can say by itself. */
export const maxOctal = 0o77777777777

function field(block: Buffer, at: number, length: number): string {
  const text = block.toString('latin1', at, at + length)
  const end = text.indexOf('\0')
  return end === -1 ? text : text.slice(0, end)
}

function octal(block: Buffer, at: number, length: number): number {
  // GNU writes what does not fit as a binary number with the highest bit set.
  if ((block[at] ?? 0) & 0x80) return binary(block, at, length)
  const text = block.toString('latin1', at, at + length).replace(/[\0 ]+$/, '')
  if (!/^ *[0-7]*$/.test(text)) throw new TarError('The archive is damaged: a number in a header is none.')
  return Number.parseInt(text.trim() || '0', 8)
}

function binary(block: Buffer, at: number, length: number): number {
  let value = (block[at] ?? 0) & 0x7f
  for (let index = at + 1; index < at + length; index += 1) value = value * 256 + (block[index] ?? 0)
  if (!Number.isSafeInteger(value)) throw new TarError('The archive is damaged: a number in a header is out of every range.')
  return value
}

/** The sum of all bytes, those of the checksum itself as spaces. */
function checksum(block: Buffer): number {
  let sum = 8 * 32
  for (let index = 0; index < blockBytes; index += 1) if (index < 148 || index >= 156) sum += block[index] ?? 0
  return sum
}
