/** Numbers of docs/agent-protocol.md. */

export const protocolVersion = 1
export const marker = Buffer.from('\0MAGS-AGENT-01\r\n', 'latin1')
export const nonceBytes = 16
export const headerBytes = 12

/** Most payload we send and most we accept. */
export const sentPayloadLimit = 2 << 20
export const receivedPayloadLimit = 65_536

export const channelLimit = 256
export const execBytesLimit = 512 << 10
export const execStringsLimit = 4_096

export const windowMin = 4 << 10
export const windowMax = 1 << 20
export const windowDefault = 256 << 10
/** Stream 0 has a window of its own that nobody chooses. */
export const stdinWindow = 256 << 10

export const frameType = {
  hello: 1,
  exec: 2,
  dial: 3,
  data: 4,
  eof: 5,
  ack: 6,
  signal: 7,
  resize: 8,
  discard: 9,
  close: 10,
  opened: 11,
  exit: 12,
  request: 13,
  reply: 14,
  file: 15,
} as const

export const requestOp = {
  ping: 1,
  identity: 2,
  attach: 3,
  detach: 4,
  freeze: 5,
  thaw: 6,
  stats: 7,
} as const
export type RequestOp = (typeof requestOp)[keyof typeof requestOp]

export const fileOp = { stat: 1, list: 2, read: 3, write: 4, remove: 5, sftp: 6 } as const
/** Most entries of one listing, and most bytes of one piece of content. */
export const fileListLimit = 10_000
export const filePieceLimit = 64 << 10
/** As the mode of a write: that of the file replaced, else 0644. */
export const keepMode = 0xffff_ffff

/** A dial to this one starts a layer worker. */
export const layerWorkerPort = 0

export const execFlag = { pty: 1, stdin: 2, script: 4, init: 8 } as const
/** Bits of what an agent can do beyond the first of its version. */
export const feature = { init: 1, ipv6: 2 } as const
