import { describe, expect, it } from 'vitest'
import { expandWord, splitWords } from './expand-words.ts'

const values: Record<string, string> = { A: 'a', EMPTY: '', PATHS: '/x:/y' }
const expand = (word: string, sign = '\\') => expandWord(word, (name) => values[name], sign)

// biome-ignore-start lint/suspicious/noTemplateCurlyInString: how Dockerfiles have them.
describe('words of a Dockerfile', () => {
  it.each([
    ['a b  c', ['a', 'b', 'c']],
    ['"a b" \'c d\'e', ['"a b"', "'c d'e"]],
    ['a\\ b "x\\" y"', ['a\\ b', '"x\\" y"']],
    ['', []],
  ])('%j has %j', (text, words) => expect(splitWords(text, '\\')).toEqual(words))

  it('a quote that is not closed is refused', () => {
    expect(() => splitWords('a "b', '\\')).toThrow('a quote " is not closed')
  })

  it.each([
    ['$A/${A}b', 'a/ab'],
    ['$AB', ''],
    ['"$A" \'$A\'', 'a $A'],
    ['\\$A "\\$A" \'\\$A\'', '$A $A \\$A'],
    ['${NONE:-x$A} ${EMPTY:-y} ${EMPTY-z}', 'xa y '],
    ['${A:+set} ${EMPTY:+set}|${EMPTY+set}', 'set |set'],
    ['${NONE:-${A:-q}}', 'a'],
    ['$ $- 5$', '$ $- 5$'],
    ['"a\\nb" a\\nb', 'a\\nb anb'],
  ])('%j becomes %j', (word, wanted) => expect(expand(word)).toBe(wanted))

  it('takes another escape character', () => expect(expand('C:\\x`$A', '`')).toBe('C:\\x$A'))

  it('says what is missing', () => {
    expect(() => expand('${NONE:?needs a value}')).toThrow('NONE: needs a value')
    expect(() => expand('${A')).toThrow('is not closed')
    expect(() => expand('${A!b}')).toThrow('is not a variable')
  })
})
// biome-ignore-end lint/suspicious/noTemplateCurlyInString: how Dockerfiles have them.

describe('what would grow without end', () => {
  it('is refused: values that double, and variables in one another', () => {
    const values: Record<string, string> = { A0: 'x'.repeat(1000) }
    const double = () => {
      for (let step = 1; step < 30; step++) values[`A${step}`] = expandWord(`$A${step - 1}$A${step - 1}`, (name) => values[name], '\\')
    }
    expect(double).toThrow('more than 128 KiB')
    const nested = (depth: number) => expandWord(`${'${a:-'.repeat(depth)}x${'}'.repeat(depth)}`, () => undefined, '\\')
    expect(nested(10)).toBe('x')
    expect(() => nested(100)).toThrow('deep in one another')
  })
})
