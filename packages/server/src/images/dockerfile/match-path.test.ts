import { expect, it } from 'vitest'
import { nameMatcher } from './match-path.ts'

it.each([
  ['*.txt', 'a.txt', true],
  ['*.txt', '.txt', true],
  ['*.txt', 'a.txt.gz', false],
  ['a*b*c', 'aXbYbZc', true],
  ['a*b*c', 'aXbYbZ', false],
  ['?', 'é', true],
  ['?', 'ab', false],
  ['[a-c]x', 'bx', true],
  ['[^a-c]x', 'bx', false],
  ['[^a-c]x', 'dx', true],
  ['[a-]', '-', true],
  ['[a', '[a', true],
  ['\\*', '*', true],
  ['\\*', 'x', false],
  ['a.b', 'axb', false],
  ['**', 'all', true],
  ['', 'x', false],
])('%s and %s', (pattern, name, expected) => {
  expect(nameMatcher(pattern)(name)).toBe(expected)
})

it('never goes back more than one star, whatever the pattern', () => {
  // An expression with as many stars would not end today.
  expect(nameMatcher(`${'*a'.repeat(120)}b`)('a'.repeat(4000))).toBe(false)
})
