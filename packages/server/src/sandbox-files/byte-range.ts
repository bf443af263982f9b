import { MagsError } from '@mags/protocol'

export interface ByteRange {
  readonly offset: number
  readonly lengthBytes: number
}

/**
 * The one range of a `Range` header (RFC 9110, 14.2) within a file of this size; undefined for no header, and for what a server may ignore: several
 * ranges, other units, nonsense. Throws MagsError('range_not_satisfiable') for one behind the end.
 */
export function parseByteRange(header: string | undefined, sizeBytes: number): ByteRange | undefined {
  const match = /^bytes=(\d{0,15})-(\d{0,15})$/.exec(header?.replaceAll(' ', '') ?? '')
  const [, first = '', last = ''] = match ?? []
  if (match === null || (first === '' && last === '')) return undefined
  if (first !== '' && last !== '' && Number(last) < Number(first)) return undefined
  const offset = first === '' ? Math.max(0, sizeBytes - Number(last)) : Number(first)
  const end = first === '' || last === '' ? sizeBytes : Math.min(Number(last) + 1, sizeBytes)
  if (offset >= end) throw new MagsError('range_not_satisfiable', `Range: the file has ${sizeBytes.toLocaleString('en-US')} bytes`)
  return { offset, lengthBytes: end - offset }
}
