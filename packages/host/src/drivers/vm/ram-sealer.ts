/**
 * Puts a template's RAM where its clones can map it and none can change it. QEMU opens the RAM of a clone for writing although it maps it privately, so a plain file would let one broken
 * QEMU write into all later clones; a sealed memfd (memfd_create(2), F_ADD_SEALS in fcntl(2)) refuses.
 */
export interface RamSealer {
  /** `path` stays good until `release`; machines that have it mapped keep their pages beyond. */
  seal(file: string): Promise<SealedRam>
}

export interface SealedRam {
  readonly path: string
  release(): Promise<void>
}
