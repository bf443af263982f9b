import { describe, expect, it } from 'vitest'
import { parseByteRange } from './byte-range.ts'

describe('Range', () => {
  it.each([
    ['bytes=0-0', { offset: 0, lengthBytes: 1 }],
    ['bytes=2-5', { offset: 2, lengthBytes: 4 }],
    ['bytes=2-', { offset: 2, lengthBytes: 8 }],
    ['bytes=-3', { offset: 7, lengthBytes: 3 }],
    ['bytes=-30', { offset: 0, lengthBytes: 10 }],
    ['bytes=9-999999999999999', { offset: 9, lengthBytes: 1 }],
  ])('%s of ten bytes', (header, range) => expect(parseByteRange(header, 10)).toEqual(range))

  it.each([undefined, '', 'bytes=', 'bytes=-', 'bytes=5-2', 'bytes=0-1,3-4', 'lines=1-2', 'bytes=a-b', 'bytes=0-9999999999999999'])(
    '%s is ignored',
    (header) => {
      expect(parseByteRange(header, 10)).toBeUndefined()
    },
  )

  it.each([
    ['bytes=10-', 10],
    ['bytes=10-20', 10],
    ['bytes=-0', 10],
    ['bytes=0-', 0],
  ])('%s of %i bytes cannot be had', (header, size) => expect(() => parseByteRange(header, size)).toThrow(/^Range: /))
})
