import type { Sandbox, SandboxDriver, SandboxShape } from './driver.ts'

/** A driver ready to work, with nothing else using what it owns. */
export interface ConformanceSetup {
  readonly driver: SandboxDriver
  readonly shape: SandboxShape
  /** False for a driver without a kernel behind it; what only a kernel can do is then skipped. */
  readonly real: boolean
  /** Frees everything; sandboxes are destroyed or detached before. */
  dispose(): Promise<void>
  /** The driver of the next daemon over the same folders; the first is not used again and `dispose` frees both. Without it the same driver adopts. */
  reopen?(): Promise<SandboxDriver>
  /** Ends a machine from outside, as a crash would. */
  kill?(sandbox: Sandbox): Promise<void>
  /** False where this kind of sandbox could be copied, but not on this machine. */
  readonly copiesFiles?: boolean
  /** Processor time of all that is in it; without it, `Sandbox.activity` tells. */
  processorTime?(sandbox: Sandbox): Promise<bigint>
  /** Rejects when anything of a hibernated one still runs. */
  gone?(sandbox: Sandbox): Promise<void>
  /** Where disks for roots can be made; on a real disk. */
  readonly disksDir?: string
  /** A shape no sandbox can be made of, and what the error must say. Without it: an image that does not exist, and its name. */
  readonly broken?: { readonly shape: SandboxShape; readonly words: RegExp }
}

export interface ConformanceOptions {
  /** Multiplies all time limits: emulated machines are slow. Default 1. */
  readonly timeScale?: number
  /** Which of the groups after the first are tested. Default: all. */
  readonly groups?: readonly ConformanceGroup[]
}

/** What a driver promises besides what one sandbox does: about ends, programs that somebody talks with, restarts of the daemon, sleep and copies. */
export type ConformanceGroup = 'end' | 'start' | 'restart' | 'sleep' | 'fork'
