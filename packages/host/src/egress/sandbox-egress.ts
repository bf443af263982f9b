import type { EgressPolicy, RefusedConnection } from '@mags/protocol'

/** What one sandbox may reach and has sent. See `RunningSandbox` for the words. */
export interface SandboxEgress {
  set(policy: EgressPolicy): Promise<void>
  /** Its processes stand still, or go on: nothing is read while they do not run. */
  rest(asleep: boolean): void
  bytes(): Promise<number>
  /** Settles once the sandbox is gone and its last byte counted; never rejects. */
  readonly totalBytes: Promise<number>
  watchRefused(listener: (refused: RefusedConnection) => void): () => Promise<void>
}
