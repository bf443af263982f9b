import { describe, expect, it } from 'vitest'
import { guestWords, lastWords, printable } from './machine.ts'

describe('printable', () => {
  it('leaves no control characters of a hostile console in', () => {
    expect(printable('\u001b[2Jpanic\r\n\r\n\u0007end\u00e9')).toBe('[2Jpanic\nend')
  })
})

describe('lastWords', () => {
  it('keeps the end', () => {
    expect(lastWords(`${'x'.repeat(5_000)} the end\n`)).toMatch(/^x{792} the end$/)
  })
})

describe('guestWords', () => {
  it('finds the cause above a long trace', () => {
    const trace = '[ 4.1] RAX: 0\n'.repeat(200)
    expect(guestWords(`agent: /dev/vda: Invalid argument\n[ 4.0] Kernel panic - not syncing: Attempted to kill init!\n${trace}`)).toBe(
      'agent: /dev/vda: Invalid argument\n[ 4.0] Kernel panic - not syncing: Attempted to kill init!',
    )
    expect(guestWords('Power down\n')).toBe('Power down')
  })
})
