import { describe, expect, it } from 'vitest'
import { commandWords } from './command-words.ts'

describe('commandWords', () => {
  it('passes words on as they are, without the -- before them', () => {
    expect(commandWords([], 'ssh')).toEqual([])
    expect(commandWords(['--'], 'ssh')).toEqual([])
    expect(commandWords(['ls', '-la', '--json'], 'exec')).toEqual(['ls', '-la', '--json'])
    expect(commandWords(['--', 'ls', '--', '-x'], 'exec')).toEqual(['ls', '--', '-x'])
  })

  it('refuses a flag in place of the command', () => {
    expect(() => commandWords(['--json', 'ls'], 'exec')).toThrow("'--json' comes too late: flags go before the name. See 'mags exec --help'.")
    expect(() => commandWords(['--', '-c', 'ls'], 'ssh')).toThrow("'-c' comes too late")
  })
})
