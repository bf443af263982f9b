import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { memoryAvailable } from './memory-available.ts'

describe('memory that is available', () => {
  it('is a share of all', async () => {
    const directory = mkdtempSync(join(tmpdir(), 'mags-memory-'))
    try {
      const path = join(directory, 'meminfo')
      writeFileSync(path, 'MemTotal:       16000000 kB\nMemFree:         1000000 kB\nMemAvailable:    4000000 kB\n')
      expect(await memoryAvailable(path)).toBe(0.25)
      // Not known is no reason to take anybody's memory.
      writeFileSync(path, 'nonsense')
      expect(await memoryAvailable(path)).toBe(1)
    } finally {
      rmSync(directory, { recursive: true, force: true })
    }
    const here = await memoryAvailable()
    expect(here).toBeGreaterThan(0)
    expect(here).toBeLessThanOrEqual(1)
  })
})
