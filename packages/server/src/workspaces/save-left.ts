import { errorCatalogue, type HostApi, MagsError } from '@mags/protocol'
import type { Logger } from 'pino'
import type { WorkspaceMetrics } from '../health/metrics.ts'
import { timestamp } from '../state/timestamp.ts'
import { backoffMs } from './backoff.ts'
import type { WorkspaceStore } from './store.ts'
import type { Timers } from './timers.ts'
import type { Turns } from './turns.ts'

export interface LeftSaverDeps {
  readonly workspaces: WorkspaceStore
  readonly host: HostApi
  readonly turns: Turns
  readonly timers: Timers
  readonly clock: () => number
  readonly logger: Logger
  readonly metrics: WorkspaceMetrics
}

const backoff = { firstMs: 2000, longestMs: 5 * 60_000 }
const attemptKey = 'saving what is left'

/**
 * Saves in the background what jobs left on this machine because it could not be saved at their end, until it works.
 *
 * Each workspace: absent ──add──► trying ◄──► waiting ──saved, taken by a job, removed, or hopeless──► absent. One attempt at a time over all. `close` ends the waits; what is left then is found by
 * the next start (`HostWorkspaces.left`).
 */
export class LeftSaver {
  readonly #deps: LeftSaverDeps
  readonly #close = new AbortController()
  readonly #loops = new Map<string, Promise<void>>()

  constructor(deps: LeftSaverDeps) {
    this.#deps = deps
  }

  add(storageId: string): void {
    if (this.#close.signal.aborted || this.#loops.has(storageId)) return
    const loop = this.#saveUntilDone(storageId).finally(() => this.#loops.delete(storageId))
    this.#loops.set(storageId, loop)
  }

  /** Settles when no workspace waits to be saved. */
  async idle(): Promise<void> {
    while (this.#loops.size > 0) await Promise.all(this.#loops.values())
  }

  async close(): Promise<void> {
    this.#close.abort(new Error('the server is closing'))
    await this.idle()
  }

  async #saveUntilDone(storageId: string): Promise<void> {
    const { timers, logger } = this.#deps
    for (let failures = 1; !this.#close.signal.aborted; failures++) {
      try {
        await this.saveOnce(storageId)
        return
      } catch (error) {
        if (this.#close.signal.aborted) return
        if (!mayWorkLater(error)) return logger.error({ err: error, storageId }, 'what a job left of a workspace cannot be saved')
        logger.warn({ err: error, storageId }, 'what a job left of a workspace could not be saved; trying again later')
      }
      await timers.wait(backoffMs(failures, timers.random, backoff), this.#close.signal).catch(() => undefined)
    }
  }

  /** One attempt, now. Does nothing while a job holds the workspace: it goes on from what is left and saves it with its own. Rejects with what the host rejects with. */
  async saveOnce(storageId: string): Promise<void> {
    const { workspaces, host, turns, clock, metrics } = this.#deps
    const endAttempt = await turns.take(attemptKey, this.#close.signal)
    try {
      const endTurn = await turns.take(storageId, this.#close.signal)
      try {
        const hold = await workspaces.takeFence(storageId)
        if (hold === undefined) return
        const startedAt = performance.now()
        const saved = await host.workspaces.saveLeft(hold).catch(async (error: unknown) => {
          metrics.saveFailed()
          await workspaces.recordUnsaved(storageId, timestamp(clock()), wordsOf(error))
          throw error
        })
        if (saved === undefined) return await workspaces.clearUnsaved(storageId)
        metrics.saved(saved.changed, (performance.now() - startedAt) / 1000, saved.changed ? saved.version.uploadedBytes : 0)
        await workspaces.recordSaved(storageId, saved.version, { now: timestamp(clock()) })
      } finally {
        endTurn()
      }
    } finally {
      endAttempt()
    }
  }
}

/** Whether a save that failed with this may work when tried again later. */
export function mayWorkLater(error: unknown): boolean {
  if (!(error instanceof MagsError)) return true
  // An operator may set it right meanwhile.
  return errorCatalogue[error.code].retryable || error.code === 'object_store_refused'
}

export const wordsOf = (error: unknown): string => (error instanceof Error ? error.message : String(error))
