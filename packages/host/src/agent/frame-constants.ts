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

export const readLimit = 60_000

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
} as const

export const requestOp = {
  ping: 1,
  identity: 2,
  attach: 3,
  detach: 4,
  freeze: 5,
  thaw: 6,
  stats: 7,
  stat: 8,
  list: 9,
  read: 10,
  write: 11,
  remove: 12,
  makeDirectory: 13,
} as const
export type RequestOp = (typeof requestOp)[keyof typeof requestOp]

export const execFlag = { pty: 1, stdin: 2, script: 4 } as const
