import { MagsError } from '@mags/protocol'

const rule = /^[a-z0-9][a-z0-9._-]{0,62}$/

/** Refuses what cannot name a new image; names become folders. */
export function checkImageName(name: string): void {
  if (!rule.test(name))
    throw new MagsError(
      'bad_request',
      `name: ${JSON.stringify(name.slice(0, 100))} cannot name an image: 1 to 63 of a-z, 0-9, '.', '_' and '-', a letter or digit first`,
    )
}
