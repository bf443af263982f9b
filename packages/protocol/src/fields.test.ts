import { describe, expect, it } from 'vitest'
import { describeFault } from './fields.ts'
import { execRequest, listJobsQuery, submitJobRequest } from './jobs.ts'

const fault = (schema: { safeParse(value: unknown): { success: boolean; error?: Parameters<typeof describeFault>[0] } }, value: unknown) => {
  const result = schema.safeParse(value)
  return result.error ? describeFault(result.error) : undefined
}

describe('faults of a request', () => {
  it.each([
    [{}, 'script: is required'],
    [{ script: 7 }, 'script: must be a string'],
    [{ script: ' \n' }, 'script: must not be empty'],
    [{ script: 'a\0b' }, 'script: must not contain a NUL character'],
    [{ script: 'x'.repeat(1024 * 1024 + 1) }, 'script: at most 1 MiB'],
    [{ script: 'é'.repeat(512 * 1024 + 1) }, 'script: at most 1 MiB'],
    [{ script: 'x', name: 'a/b' }, 'name: must be 1 to 63 of A-Z a-z 0-9 . _ -'],
    [{ script: 'x', name: 'a\n' }, 'name: must be 1 to 63 of A-Z a-z 0-9 . _ -'],
    [{ script: 'x', timeout: 1.5 }, 'timeout: must be a whole number from 1 to 2,592,000'],
    [{ script: 'x', port: 0 }, 'port: must be a whole number from 1 to 65,535'],
    [{ script: 'x', persistent: 'yes' }, 'persistent: must be true or false'],
    [{ script: 'x', isolation: 'none' }, 'isolation: must be one of auto, vm, container'],
    [{ script: 'x', environment: [] }, 'environment: must be an object of strings'],
    [{ script: 'x', environment: { A: 1 } }, 'environment.A: must be a string'],
    [{ script: 'x', environment: { A: 'a\0' } }, 'environment.A: must not contain a NUL character'],
    [{ script: 'x', environment: { '1A': '' } }, 'environment.1A: a name must be letters, digits and _ and not begin with a digit'],
    [{ script: 'x', environment: { A: 'x'.repeat(128 * 1024) } }, 'environment: at most 128 KiB in all'],
    [{ script: 'x', environment: Object.fromEntries(Array.from({ length: 100_000 }, (_, i) => [`A${i}`, ''])) }, 'environment: at most 1,000 entries'],
    [null, 'the body must be a JSON object'],
    ['x', 'the body must be a JSON object'],
  ])('names the field and the rule %#', (body, words) => {
    expect(fault(submitJobRequest, body)).toBe(words)
  })

  it('refuses members it does not know where the request is strict', () => {
    expect(fault(execRequest, { command: 'ls', shell: 'bash' })).toBe('unknown member "shell"')
    expect(fault(listJobsQuery, { page_size: '101' })).toBe('page_size: must be a whole number from 1 to 100')
  })

  it('accepts what is at a limit', () => {
    const environment = { A: 'x'.repeat(128 * 1024 - 3) }
    expect(submitJobRequest.parse({ script: 'x'.repeat(1024 * 1024), name: 'a'.repeat(63), environment, timeout: 2_592_000 }).environment).toEqual(environment)
  })
})
