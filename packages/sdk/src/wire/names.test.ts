import { describe, expect, it } from 'vitest'
import { logRowBytes } from './log-row-bytes.ts'
import { toWire, withCamelNames } from './names.ts'

describe('names', () => {
  it('makes every member readable in both spellings, at every depth, and leaves the JSON as it came', () => {
    const text = '{"request_id":"r","jobs":[{"exit_code":0}],"plain":1}'
    const answer = withCamelNames(JSON.parse(text) as { request_id: string; jobs: { exit_code: number }[]; plain: number })
    expect([answer.requestId, answer.request_id, answer.jobs[0]?.exitCode]).toEqual(['r', 'r', 0])
    expect(JSON.stringify(answer)).toBe(text)
  })

  it('is not fooled by hostile names', () => {
    const answer = withCamelNames(JSON.parse('{"__proto__":{"is_admin":true},"_x_y":1}') as object)
    expect('isAdmin' in answer).toBe(false)
    expect(Object.getPrototypeOf(answer)).toBe(Object.prototype)
  })

  it('maps options to the wire and keeps the names inside values', () => {
    expect(toWire({ memoryMb: 5, noSleep: false, image: undefined, startupCommand: null, environment: { aB: 'x' } })).toEqual({
      memory_mb: 5,
      no_sleep: false,
      startup_command: null,
      environment: { aB: 'x' },
    })
  })
})

describe('logRowBytes', () => {
  it('prefers the true bytes and adds a newline unless the row is partial', () => {
    expect(logRowBytes({ message: 'é' })).toEqual(Buffer.from('é\n'))
    expect(logRowBytes({ message: '\ufffd', base64: '/w==', partial: true })).toEqual(Buffer.from([0xff]))
  })
})
