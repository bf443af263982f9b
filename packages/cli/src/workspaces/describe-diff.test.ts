import type { WorkspaceDifferenceWire } from '@mags/sdk'
import { describe, expect, it } from 'vitest'
import { describeDiff } from './describe-diff.ts'

const added = (path: string, content?: string): WorkspaceDifferenceWire => ({
  path,
  change: 'added',
  before: null,
  after: { kind: 'file', size_bytes: 0, mode: 0o644 },
  ...(content === undefined ? {} : { content }),
})

describe('describeDiff', () => {
  it('shows changed lines under their path, and nothing where none changed', () => {
    const text = describeDiff({
      differences: [added('/a', '=======\n--- /dev/null\n+++ b/a\n@@ -0,0 +1,1 @@\n+=====\n'), added('/empty', '=======\n--- /dev/null\n+++ b/empty\n')],
    })
    expect(text.split('\n').slice(1)).toEqual([
      'added   file  0644  0 B   /a',
      '--- /dev/null',
      '+++ b/a',
      '@@ -0,0 +1,1 @@',
      '+=====',
      'added   file  0644  0 B   /empty',
      '',
    ])
  })

  it('quotes a path with a line feed', () => {
    expect(describeDiff({ differences: [added('/x\ny')] })).toContain('"/x\\ny"\n')
  })
})
