import { describe, expect, it } from 'vitest'
import { WorkspaceLines } from './workspace-lines.ts'

describe('WorkspaceLines', () => {
  it('lets only the first one try, and the next one once that has left', () => {
    const lines = new WorkspaceLines<string>()
    expect([lines.join('w', 'a'), lines.join('w', 'b'), lines.join('v', 'c')]).toEqual([true, false, true])
    expect(lines.before('w')).toEqual({ first: 'a' })
    expect(lines.leave('w', 'a')).toBe('b')
    expect(lines.leave('w', 'b')).toBeUndefined()
    expect(lines.join('w', 'd')).toBe(true)
  })

  it('parks who tried in vain until the workspace is free', () => {
    const lines = new WorkspaceLines<string>()
    lines.join('w', 'a')
    expect(lines.park('w', 'holder')).toBe(true)
    expect(lines.parked).toEqual([{ workspace: 'w', holder: 'holder' }])
    lines.join('w', 'b')
    expect(lines.before('w')).toEqual({ holder: 'holder' })
    expect(lines.leave('w', 'b')).toBeUndefined()
    expect(lines.freed('w')).toBe('a')
    expect(lines.freed('w')).toBeUndefined()
    expect(lines.parked).toEqual([])
  })

  it('has one try again at once whose workspace was freed while it tried', () => {
    const lines = new WorkspaceLines<string>()
    lines.join('w', 'a')
    expect(lines.freed('w')).toBeUndefined()
    expect(lines.park('w', 'holder')).toBe(false)
    expect(lines.park('w', 'holder')).toBe(true)
  })
})
