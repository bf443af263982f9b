/** Numbers of docs/layer-protocol.md; native/layer/wire.h has the same. */
export const layerVersion = 1
export const frameHeaderBytes = 5
export const dataLimitBytes = 256 << 10
export const payloadLimitBytes = dataLimitBytes + (4 << 10)

export const ask = { open: 1, walk: 2, changes: 3, read: 4, readEnd: 5, write: 6, entry: 7, data: 8, writeEnd: 9 } as const
export const tell = { ready: 1, entries: 2, changed: 3, data: 4, hole: 5, end: 6, missing: 7, done: 8, error: 9 } as const

export const changedPresent = 1
export const changedRemoved = 2

export const pathLimitBytes = 4095
export const nameLimitBytes = 255
export const attributesLimitBytes = 64 << 10
export const entriesLimit = 2_000_000
export const extentsLimit = 65_536
/** -1 means "no id" to the kernel. */
export const idMax = 0xffff_fffe
/** In the order of their numbers on the wire, from 1. */
export const entryKinds = ['directory', 'file', 'symlink', 'fifo', 'socket', 'whiteout', 'device'] as const
