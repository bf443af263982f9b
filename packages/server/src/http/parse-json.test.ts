import { describe, expect, it } from 'vitest'
import { parseJson } from './parse-json.ts'

describe('parseJson', () => {
  it('parses', () => {
    expect(parseJson(' {"a": [1, -2.5e3, true, null, "\\u00e9\\n"], "b": {}} ')).toEqual({ a: [1, -2500, true, null, 'é\n'], b: {} })
  })

  it.each([
    ['{"a": }', 6],
    ['{"a" 1}', 5],
    ['{a: 1}', 1],
    ['[1, 2', 5],
    ['[1 2]', 3],
    ['[1,]', 3],
    ['{"a":1,}', 7],
    ['"abc', 4],
    ['"a\nb"', 2],
    ['"a\\xb"', 2],
    ['tru', 0],
    ['{}x', 2],
    ['{}{}', 2],
    ['[}', 1],
    [']', 0],
    ['01', 1],
    ['-', 0],
    [`["${'x'.repeat(2_000_000)}", !]`, 2_000_005],
  ])('names the place of the fault %#', (text, position) => {
    expect(() => parseJson(text)).toThrow(expect.objectContaining({ code: 'bad_request', details: { position } }))
  })
})
