import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import { LineHold } from './line-hold.ts'
import { characterBoundary, wholeCharacters } from './utf8.ts'

describe('LineHold', () => {
  beforeEach(() => void vi.useFakeTimers())
  afterEach(() => void vi.useRealTimers())

  function collect() {
    const blocks: [string, boolean][] = []
    const hold = new LineHold({ emit: (block, partial) => blocks.push([block.toString('latin1'), partial]) })
    return { blocks, hold }
  }

  it('passes whole lines on at once and joins the rest with what follows', () => {
    const { blocks, hold } = collect()
    hold.push(Buffer.from('a\nb\nc'))
    expect(blocks).toEqual([['a\nb\n', false]])
    hold.push(Buffer.from('d'))
    hold.push(Buffer.from('e\n'))
    expect(blocks.at(-1)).toEqual(['cde\n', false])
  })

  it('lets the rest go after a moment', () => {
    const { blocks, hold } = collect()
    hold.push(Buffer.from('prompt> '))
    expect(blocks).toEqual([])
    vi.advanceTimersByTime(8)
    expect(blocks).toEqual([['prompt> ', true]])
    vi.advanceTimersByTime(1000)
    expect(blocks).toHaveLength(1)
  })

  it('waits longer for the end of a character, but not for ever', () => {
    const { blocks, hold } = collect()
    hold.push(Buffer.from([0x61, 0xe2, 0x82]))
    vi.advanceTimersByTime(8)
    expect(blocks).toEqual([['a', true]])
    vi.advanceTimersByTime(50)
    expect(blocks.at(-1)).toEqual(['\xe2\x82', true])
  })

  it('does not keep the bytes it was given', () => {
    const { blocks, hold } = collect()
    const bytes = Buffer.from('x')
    hold.push(bytes)
    bytes.fill(0)
    hold.push(Buffer.from('\n'))
    expect(blocks).toEqual([['x\n', false]])
  })

  it('holds at most 64 KiB', () => {
    const { blocks, hold } = collect()
    for (let index = 0; index < 65; index++) hold.push(Buffer.alloc(1024, 97))
    expect(blocks[0]?.[0]).toHaveLength(64 * 1024)
    expect(hold.held).toHaveLength(1024)
    hold.drop()
  })
})

describe('UTF-8 boundaries', () => {
  const text = Buffer.from('aé€𝄞')

  it('never cuts a character', () => {
    const cuts = new Set(Array.from({ length: text.length + 1 }, (_, at) => characterBoundary(text, at)))
    expect([...cuts].sort((a, b) => a - b)).toEqual([0, 1, 3, 6, 10])
  })

  it('knows what is not whole yet', () => {
    expect(Array.from({ length: text.length + 1 }, (_, at) => wholeCharacters(text.subarray(0, at)))).toEqual([0, 1, 1, 3, 3, 3, 6, 6, 6, 6, 10])
  })

  it('leaves alone what is not UTF-8', () => {
    expect(characterBoundary(Buffer.alloc(20, 0x80), 10)).toBe(10)
    expect(wholeCharacters(Buffer.alloc(20, 0x80))).toBe(20)
    expect(wholeCharacters(Buffer.from([0xff]))).toBe(1)
  })
})
