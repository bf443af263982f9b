import { MagsError } from '@mags/protocol'

const maxNameBytes = 255

/** The last part of the name a client sent, whatever kind of path it was; it becomes a name in /root. Throws MagsError('bad_request') when none is left. */
export function reduceFileName(sent: string | undefined): string {
  const name = sent?.split(/[/\\]/).at(-1) ?? ''
  if (name === '') throw new MagsError('bad_request', 'file: needs a file name')
  if (name === '.' || name === '..') throw new MagsError('bad_request', `file: ${name} cannot be a file name`)
  if (name.includes('\0')) throw new MagsError('bad_request', 'file: the file name must not contain a NUL character')
  if (Buffer.byteLength(name) > maxNameBytes) throw new MagsError('bad_request', `file: the file name must have at most ${maxNameBytes} bytes`)
  return name
}
