import { TarError } from './tar-error.ts'

/** Keyword and value of an extended header; values are binary strings. */
export type PaxRecords = ReadonlyMap<string, string>

/** Reads `<length> <keyword>=<value>\n`, again and again. Throws TarError for anything else. */
export function readPaxRecords(bytes: Buffer): PaxRecords {
  const records = new Map<string, string>()
  const text = bytes.toString('latin1')
  for (let at = 0; at < text.length; ) {
    const space = text.indexOf(' ', at)
    const length = space === -1 ? '' : text.slice(at, space)
    const end = at + Number(length)
    const equals = text.indexOf('=', space)
    if (!/^[1-9]\d{0,6}$/.test(length) || end > text.length || equals === -1 || equals >= end || text[end - 1] !== '\n') throw damaged()
    records.set(text.slice(space + 1, equals), text.slice(equals + 1, end - 1))
    at = end
  }
  return records
}

export function writePaxRecords(records: PaxRecords): Buffer {
  const lines = [...records].map(([keyword, value]) => {
    const rest = ` ${keyword}=${value}\n`
    // The length counts its own digits.
    let length = rest.length + 1
    while (String(length).length + rest.length !== length) length = String(length).length + rest.length
    return `${length}${rest}`
  })
  return Buffer.from(lines.join(''), 'latin1')
}

function damaged(): TarError {
  return new TarError('The archive is damaged: an extended header cannot be read.')
}
