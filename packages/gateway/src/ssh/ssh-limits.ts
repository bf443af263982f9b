/** What one gateway puts up with. */
export interface SshLimits {
  /** Connections that have not shown a key yet, from one address (an IPv6 network of 64 bits counts as one) and in all. */
  readonly unauthenticatedPerAddress: number
  readonly unauthenticated: number
  /** Connections in all. */
  readonly connections: number
  readonly loginGraceMs: number
  /** Refused keys and passwords on one connection, before it is ended. */
  readonly authTries: number
  /** Failures of one address that are answered at once: a client may offer several keys. */
  readonly freeFailures: number
  /** Delay of the first failure after those; doubles with each. */
  readonly failureDelayMs: number
  readonly failureDelayMaxMs: number
  /** An address is forgotten when it has not failed for so long. */
  readonly failureMemoryMs: number
  readonly channelsPerConnection: number
  /** Bytes that came on all channels of a connection and that nobody has taken. The protocol's windows allow 2 MiB a channel. */
  readonly unreadBytes: number
  readonly keepaliveMs: number
  readonly keepaliveMissed: number
  /** Renewals of the keys that a client may ask for in a minute. */
  readonly rekeysPerMinute: number
  readonly rekeyTimeoutMs: number
  /** Between the hang-up and the kill of a program whose client is gone. */
  readonly hangUpGraceMs: number
}

export const defaultSshLimits: SshLimits = {
  unauthenticatedPerAddress: 64,
  unauthenticated: 256,
  connections: 2048,
  loginGraceMs: 20_000,
  authTries: 6,
  freeFailures: 6,
  failureDelayMs: 250,
  failureDelayMaxMs: 8_000,
  failureMemoryMs: 600_000,
  channelsPerConnection: 64,
  unreadBytes: 64 * 1024 * 1024,
  keepaliveMs: 30_000,
  keepaliveMissed: 4,
  rekeysPerMinute: 10,
  rekeyTimeoutMs: 30_000,
  hangUpGraceMs: 5_000,
}
