import { describe, expect, it } from 'vitest'
import { dockerIgnore } from './docker-ignore.ts'

const kept = (text: string, paths: readonly string[]) => paths.filter((path) => !dockerIgnore(text, 'Dockerfile').ignores(path))

describe('.dockerignore', () => {
  it('keeps out what matches, and all below it', () => {
    expect(kept('node_modules\n# a comment\n/dist/\n*.log', ['node_modules/a/b', 'src/node_modules', 'dist/x', 'a.log', 'src/a.log', 'src'])).toEqual([
      'src/node_modules',
      'src/a.log',
      'src',
    ])
    expect(kept('**/*.log\n?x\n[a-c]y', ['a.log', 'src/deep/a.log', 'ax', 'abx', 'by', 'dy'])).toEqual(['abx', 'dy'])
    expect(kept('a/**/z\ndocs/**', ['a/z', 'a/b/c/z', 'docs/x', 'docs'])).toEqual(['docs'])
  })

  it('the last rule that matches decides', () => {
    expect(kept('*\n!src\nsrc/secret', ['a', 'src/a', 'src/secret', 'src'])).toEqual(['src/a', 'src'])
    expect(dockerIgnore('*\n!src', 'Dockerfile').hasExceptions).toBe(true)
  })

  it('never keeps the Dockerfile out, and takes what it does not know for itself', () => {
    expect(kept('*', ['Dockerfile', 'x'])).toEqual(['Dockerfile'])
    expect(kept('a.b\n(x)\n\\*', ['aXb', 'a.b', '(x)', '*', 'y'])).toEqual(['aXb', 'y'])
  })
})
