import { MagsError } from '@mags/protocol'

const part = /^[A-Za-z0-9._-]{1,200}$/

/** Refuses what is no key, so that no store ever sees a path that leads out of it. Rejecting is a fault of ours: keys never come from outside. */
export function checkKey(key: string): string {
  if (!isKey(key)) throw new MagsError('internal', `${JSON.stringify(key.slice(0, 600))} is not a key of an object store.`)
  return key
}

export function isKey(key: string): boolean {
  return key.length <= 512 && key.split('/').every((word) => part.test(word) && word !== '.' && word !== '..')
}

/** Beginnings of keys: whole parts, then possibly the beginning of one. */
export function checkPrefix(prefix: string): string {
  const cut = prefix.lastIndexOf('/')
  if (cut >= 0) checkKey(prefix.slice(0, cut))
  if (!/^[A-Za-z0-9._-]{0,200}$/.test(prefix.slice(cut + 1)))
    throw new MagsError('internal', `${JSON.stringify(prefix.slice(0, 600))} is not the beginning of a key.`)
  return prefix
}
