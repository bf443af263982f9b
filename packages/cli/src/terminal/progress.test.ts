import { describe, expect, it } from 'vitest'
import { Output } from './output.ts'
import { Progress } from './progress.ts'

function setUp(isTTY: boolean) {
  let written = ''
  const stream = {
    isTTY,
    on: () => undefined,
    write: (bytes: string | Uint8Array, done: () => void) => {
      written += Buffer.from(bytes).toString()
      done()
      return true
    },
  }
  const clock = { nowMs: 0 }
  const output = new Output({ stdout: stream, stderr: stream }, {})
  return { output, clock, progress: new Progress(output, () => clock.nowMs), written: () => written.replaceAll('\u001b[2K', '|') }
}

describe('Progress', () => {
  it('is silent for what is quick, then rewrites one line, and takes it away', () => {
    const { progress, clock, written } = setUp(true)
    for (const nowMs of [0, 999, 1000, 1100, 1200, 1399, 1400]) {
      clock.nowMs = nowMs
      progress.update(() => String(nowMs))
    }
    expect(written()).toBe('\r|1000\r|1200\r|1400')
    progress[Symbol.dispose]()
    expect(written()).toBe('\r|1000\r|1200\r|1400\r|')
  })

  it('says nothing where nobody watches, and beside JSON', () => {
    const unwatched = setUp(false)
    const json = setUp(true)
    json.output.json = true
    using ofJson = new Progress(json.output, () => json.clock.nowMs)
    for (const { clock } of [unwatched, json]) clock.nowMs = 9000
    unwatched.progress.update(() => 'x')
    ofJson.update(() => 'x')
    expect([unwatched.written(), json.written()]).toEqual(['', ''])
  })
})
