import { MagsError } from '@mags/protocol'

/** What should become an image cannot, because of `rule`; with `entry`, because of that entry of an archive. */
export function imageInvalid(rule: string, entry?: string): MagsError {
  return new MagsError('image_invalid', entry === undefined ? rule : `entry ${shownPath(entry)}: ${rule}`)
}

/** A path whose characters are one byte each, for a person. */
export function shownPath(path: string): string {
  const text = Buffer.from(path, 'latin1').toString('utf8')
  return JSON.stringify(text.length > 200 ? `${text.slice(0, 200)}…` : text)
}
