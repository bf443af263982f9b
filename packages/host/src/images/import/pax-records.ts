import type { ExtendedAttribute } from '../../layers/layer-session.ts'
import { imageInvalid } from './image-invalid.ts'

/** What an extended header (pax(1), `x`) says about the entry after it. */
export interface PaxRecords {
  readonly path?: string
  readonly linkPath?: string
  readonly sizeBytes?: number
  readonly uid?: number
  readonly gid?: number
  readonly mtimeNs?: bigint
  readonly attributes: readonly ExtendedAttribute[]
  /** Keys of records, as they stand there. */
  readonly keys: readonly string[]
}

const attributePrefix = 'SCHILY.xattr.'
/** Attributes of one file fill 64 KiB at most. */
const mostRecords = 10_000

/** Reads records of `LENGTH KEY=VALUE\n`; the length counts all of it. Values may hold any byte. */
export function readPaxRecords(bytes: Buffer): PaxRecords {
  const values = new Map<string, Buffer>()
  for (let at = 0; at < bytes.length; ) {
    const blank = bytes.indexOf(0x20, at)
    const digits = blank < 0 || blank - at > 10 ? '' : bytes.toString('latin1', at, blank)
    const length = /^[1-9][0-9]*$/.test(digits) ? Number(digits) : 0
    const end = at + length
    const equals = bytes.indexOf(0x3d, blank)
    if (length === 0 || end > bytes.length || bytes[end - 1] !== 0x0a || equals < 0 || equals >= end)
      throw imageInvalid('an extended header of the archive cannot be read')
    if (values.size === mostRecords) throw imageInvalid(`an extended header of the archive has more than ${mostRecords} records`)
    values.set(bytes.toString('latin1', blank + 1, equals), bytes.subarray(equals + 1, end - 1))
    at = end
  }
  const attributes: ExtendedAttribute[] = []
  for (const [key, value] of values)
    if (key.startsWith(attributePrefix)) attributes.push({ name: key.slice(attributePrefix.length), value: Buffer.from(value) })
  const path = values.get('path')?.toString('latin1')
  const linkPath = values.get('linkpath')?.toString('latin1')
  const sizeBytes = whole(values.get('size'), 'size')
  const uid = whole(values.get('uid'), 'uid')
  const gid = whole(values.get('gid'), 'gid')
  const mtimeNs = time(values.get('mtime'))
  return {
    attributes,
    keys: [...values.keys()],
    ...(path === undefined ? {} : { path }),
    ...(linkPath === undefined ? {} : { linkPath }),
    ...(sizeBytes === undefined ? {} : { sizeBytes }),
    ...(uid === undefined ? {} : { uid }),
    ...(gid === undefined ? {} : { gid }),
    ...(mtimeNs === undefined ? {} : { mtimeNs }),
  }
}

function whole(value: Buffer | undefined, key: string): number | undefined {
  if (value === undefined || value.length === 0) return undefined
  const text = value.toString('latin1')
  const number = /^-?[0-9]{1,16}$/.test(text) ? Number(text) : Number.NaN
  if (!Number.isSafeInteger(number)) throw imageInvalid(`an extended header of the archive has ${key}=${JSON.stringify(text.slice(0, 40))}`)
  return number
}

/** Seconds with a fraction, perhaps. */
function time(value: Buffer | undefined): bigint | undefined {
  const match = value === undefined ? null : /^(-?)([0-9]{1,18})(?:\.([0-9]*))?$/.exec(value.toString('latin1'))
  if (match === null) return undefined
  const ns = BigInt(match[2] as string) * 1_000_000_000n + BigInt((match[3] ?? '').slice(0, 9).padEnd(9, '0'))
  return match[1] === '-' ? -ns : ns
}
