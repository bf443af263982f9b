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

  it.each(['{"__proto__": {"persist": true}}', '{"environment": {"__proto__": "x"}}', '[{"\\u005f_proto__": 1}]'])(
    'refuses a member that would get lost: %s',
    (text) => {
      expect(() => parseJson(text)).toThrow(expect.objectContaining({ code: 'bad_request', message: expect.stringContaining('__proto__') }))
    },
  )

  it('takes a value with that name', () => {
    expect(parseJson('{"name": "__proto__", "constructor": ["__proto__"]}')).toEqual({ name: '__proto__', constructor: ['__proto__'] })
  })

  it.each([
    ['lists', '[', '', ']'],
    ['objects', '{"a":', '1', '}'],
  ])('bounds how deep %s are nested', (_what, open, innermost, close) => {
    const nested = (depth: number) => open.repeat(depth) + innermost + close.repeat(depth)
    expect(JSON.stringify(parseJson(nested(64)))).toBe(nested(64))
    for (const depth of [65, 300_000])
      expect(() => parseJson(nested(depth))).toThrow(expect.objectContaining({ code: 'bad_request', message: 'the body is nested deeper than 64 levels' }))
  })
})
