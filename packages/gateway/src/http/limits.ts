/** Bounds of the HTTP gateway; times in milliseconds. */
export interface HttpLimits {
  /** Client connections in all, and from one address (or /64 of IPv6). Trusted proxies are not counted by address. */
  readonly maxConnections: number
  readonly maxConnectionsPerAddress: number
  /** Requests under way by HTTP/2, counted in the same way: a connection may have a hundred, and each has one of its own to a sandbox. */
  readonly maxStreams: number
  readonly maxStreamsPerAddress: number
  /** From the first byte of a request, or of a connection, to the end of the head. */
  readonly headMs: number
  /** Between two requests on a connection. */
  readonly keepAliveMs: number
  /** A body must move within this time while we wait for it; and so must a client that takes an answer. */
  readonly bodyMs: number
  /** From a request that is sent to the head of its answer. */
  readonly headTimeoutMs: number
  /** To connect to a server in a sandbox. */
  readonly connectMs: number
  /** Requests that wait for a job to open, and how long. */
  readonly maxHeldPerJob: number
  readonly heldMs: number
  /** A browser that waits longer gets a page. */
  readonly pageMs: number
  /** A job whose processes started less than `recentMs` ago may not listen yet: tried again for this long. */
  readonly listenMs: number
  readonly recentMs: number
  /** A job stays open this long after its last request. */
  readonly lingerMs: number
  /** Open requests may end within this time at close. */
  readonly drainMs: number
  /** A raw connection of which one side has ended goes after this time without a byte. */
  readonly halfOpenMs: number
  /** A raw connection without a byte for this long does not keep its job awake; bytes of its client wake it. */
  readonly quietMs: number
}

export const defaultLimits: HttpLimits = {
  maxConnections: 8192,
  maxConnectionsPerAddress: 512,
  maxStreams: 16_384,
  maxStreamsPerAddress: 2048,
  headMs: 15_000,
  keepAliveMs: 60_000,
  bodyMs: 120_000,
  headTimeoutMs: 600_000,
  connectMs: 30_000,
  maxHeldPerJob: 256,
  heldMs: 60_000,
  pageMs: 2000,
  listenMs: 10_000,
  recentMs: 60_000,
  lingerMs: 1000,
  drainMs: 10_000,
  halfOpenMs: 60_000,
  quietMs: 30_000,
}
