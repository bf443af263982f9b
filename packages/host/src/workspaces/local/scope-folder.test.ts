import { expect, it } from 'vitest'
import { scopeFolder } from './scope-folder.ts'

it('takes a folder at the top and nothing else', () => {
  expect(scopeFolder('/workspace')).toBe('workspace')
  for (const scope of ['', '/', 'workspace', '/a/b', '/workspace/', '/.', '/..', '/a\0', `/${'é'.repeat(128)}`, '/proc', '/run']) {
    expect(() => scopeFolder(scope)).toThrow(expect.objectContaining({ code: 'internal' }))
  }
})
