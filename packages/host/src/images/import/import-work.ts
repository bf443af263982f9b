import { join } from 'node:path'
import type { ImportCounts } from './add-archive.ts'
import type { ImportLimits } from './import-limits.ts'
import { ImportMemory, memoryPool } from './import-memory.ts'
import { Progress } from './progress.ts'

/** What all steps of one import share. */
export interface ImportWork {
  /** A folder of its own, removed with all in it when the import ends. */
  readonly dir: string
  readonly limits: ImportLimits
  readonly abort: AbortSignal
  readonly progress: Progress
  readonly counts: ImportCounts
  readonly memory: ImportMemory
  /** Last words of programs. */
  readonly logFile: string
}

export function importWork(
  dir: string,
  limits: ImportLimits,
  onProgress: (words: string) => void,
  abort: AbortSignal,
  memory = new ImportMemory(memoryPool()),
): ImportWork {
  return {
    dir,
    limits,
    abort,
    memory,
    progress: new Progress(onProgress),
    counts: { entries: 0, extensions: 0, extensionBytes: 0, metadataBytes: 0, packedBytes: 0, unpackedBytes: 0, skippedDevices: 0, droppedAttributes: 0 },
    logFile: join(dir, 'log'),
  }
}
