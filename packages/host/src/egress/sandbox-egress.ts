import type { EgressPolicy, RefusedConnection } from '@mags/protocol'

/** What one sandbox may reach and has sent. See `RunningSandbox` for the words. */
export interface SandboxEgress {
  set(policy: EgressPolicy): Promise<void>
  bytes(): Promise<number>
  watchRefused(listener: (refused: RefusedConnection) => void): () => void
}
