import { MagsError } from '@mags/protocol'

/** How much may come of one import. What is claimed in a header counts for nothing; what arrives does. */
export interface ImportLimits {
  /** Of every stream after it was unpacked, and of all files together. */
  readonly maxBytes: number
  readonly maxEntries: number
  /** Names, targets of links and attributes, which are held in memory. */
  readonly maxMetadataBytes: number
}

export function importLimits(maxGb: number): ImportLimits {
  return { maxBytes: maxGb * 2 ** 30, maxEntries: 1_000_000, maxMetadataBytes: 256 * 2 ** 20 }
}

/** Over the bytes that the operator allows. */
export function tooLarge(what: string): MagsError {
  return new MagsError('too_large', `${what}; the operator can allow more with MAGS_IMAGE_MAX_GB`)
}

/** Over what no setting changes. */
export function tooMuch(what: string): MagsError {
  return new MagsError('too_large', `${what}; no more is done here`)
}
