import { describe, expect, it } from 'vitest'
import { describeSaved } from '../run/say-saved.ts'
import { formatBytes } from '../terminal/format-bytes.ts'
import { parseReference } from './version-reference.ts'

describe('words about workspaces', () => {
  it('say what was saved', () => {
    const saved = { workspace_id: 'proj', workspace_version: 4, workspace_bytes_uploaded: 12_300_000, workspace_unsaved_since: null }
    expect(describeSaved(saved)).toBe('saved proj@4 (12.3 MB uploaded)')
    expect(describeSaved({ ...saved, workspace_bytes_uploaded: 0 })).toBe('nothing new since proj@4')
    expect(describeSaved({ ...saved, workspace_version: 0 })).toBe("nothing to save in 'proj' yet")
    expect(describeSaved({ ...saved, workspace_unsaved_since: '2026-01-01T00:00:00.000Z' })).toContain('is not saved since 2026-01-01')
    expect(describeSaved({ ...saved, workspace_id: null })).toBe('')
  })

  it('give sizes in units that fit', () => {
    expect([0, 999, 1000, 99_949, 99_950, 999_499, 999_500, 3_260_000_000].map(formatBytes)).toEqual([
      '0 B',
      '999 B',
      '1.0 kB',
      '99.9 kB',
      '100 kB',
      '999 kB',
      '1.0 MB',
      '3.3 GB',
    ])
  })

  it('take names and versions apart', () => {
    expect(parseReference('a.b_c-1@12')).toEqual({ name: 'a.b_c-1', version: 12 })
    expect(parseReference('a')).toEqual({ name: 'a', version: undefined })
    for (const text of ['', 'a@', 'a@01', 'a@-1', 'a@1.5', '@3', 'a@3@4', 'a b', `${'a'.repeat(64)}`, 'a@3\n'])
      expect(() => parseReference(text), text).toThrow(/must be NAME or NAME@VERSION/)
  })
})
