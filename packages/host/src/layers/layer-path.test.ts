import { describe, expect, it } from 'vitest'
import { compareLayerPaths, isLayerPath, TreeOrder } from './layer-path.ts'

function bytes(path: string): Buffer {
  return Buffer.from(path, 'latin1')
}

describe('paths of a layer', () => {
  it('have names of 1 to 255 bytes, and 4,095 bytes together', () => {
    const good = ['a', 'a/b', '...', '.a/..b', '\xff', 'x'.repeat(255), `${'a/'.repeat(2047)}b`]
    const bad = ['', '/', '/a', 'a/', 'a//b', '.', '..', 'a/..', '../a', 'a/./b', 'a\0b', 'x'.repeat(256), `${'a/'.repeat(2048)}b`]
    expect(good.filter((path) => !isLayerPath(bytes(path)))).toEqual([])
    expect(bad.filter((path) => isLayerPath(bytes(path)))).toEqual([])
  })

  it('are in tree order: what is in a folder comes right behind it', () => {
    const ordered = ['', 'a', 'a/b', 'a/b/c', 'a/b!', 'a!', 'a!/x', 'ab', 'b', '\xff']
    const sorted = ordered
      .map(bytes)
      .reverse()
      .sort(compareLayerPaths)
      .map((path) => path.toString('latin1'))
    expect(sorted).toEqual(ordered)
    expect(compareLayerPaths(bytes('a/b'), bytes('a/b'))).toBe(0)
  })
})

describe('the order of a walk', () => {
  const refused = 'broke its protocol'

  function walk(...entries: readonly string[]) {
    const order = new TreeOrder()
    for (const entry of entries) order.next(bytes(entry.replace(/\/$/, '')), entry === '' || entry.endsWith('/'))
  }

  it('takes a tree', () => {
    expect(() => walk('', 'a/', 'a/b/', 'a/b/c', 'a/d', 'a!', 'b/', 'b/c/', 'c')).not.toThrow()
  })

  it('refuses what is none', () => {
    expect(() => walk('a')).toThrow(refused)
    expect(() => walk('', '')).toThrow(refused)
    expect(() => walk('', 'a', 'a')).toThrow(refused)
    expect(() => walk('', 'b', 'a')).toThrow(refused)
    expect(() => walk('', 'a', 'a/b')).toThrow(refused)
    expect(() => walk('', 'a/b')).toThrow(refused)
    expect(() => walk('', 'a/', 'b/', 'a/c')).toThrow(refused)
    expect(() => walk('', 'a/', 'a!', 'a/b')).toThrow(refused)
    expect(() => walk('', 'aa/', 'ab/c')).toThrow(refused)
  })
})
