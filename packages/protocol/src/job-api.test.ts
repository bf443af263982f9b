import { describe, expect, it } from 'vitest'
import { changeJobRequest, createJobRequest, isRunOver, runStatusOf } from './job-api.ts'

describe('status words of the Jobs API', () => {
  it.each([
    ['pending', null, false, 'not_started'],
    ['running', null, false, 'in_progress'],
    ['running', null, true, 'in_progress'],
    ['sleeping', null, true, 'in_progress'],
    ['running', 0, true, 'completed'],
    ['sleeping', 0, true, 'completed'],
    ['running', 3, true, 'failed'],
    ['completed', 0, false, 'completed'],
    ['error', 3, false, 'failed'],
    ['error', 124, false, 'failed'],
    ['error', null, false, 'error'],
    ['stopped', 143, false, 'cancelled'],
    ['stopped', null, true, 'cancelled'],
  ] as const)('%s with exit code %s, persistent %s: %s', (status, exitCode, persistent, word) => {
    expect(runStatusOf({ status, exitCode, persistent })).toBe(word)
    expect(isRunOver(word)).toBe(word !== 'not_started' && word !== 'in_progress')
  })
})

describe('requests of the Jobs API', () => {
  it('take null for what has a default', () => {
    const optional = Object.keys(createJobRequest.shape).filter((field) => field !== 'name' && field !== 'script')
    const nulls = Object.fromEntries(optional.map((field) => [field, null]))
    expect(createJobRequest.parse({ name: 'Hello, world', script: 'true', ...nulls })).toMatchObject({ name: 'Hello, world', ...nulls })
  })

  it('tell what was not said from what is null', () => {
    expect(changeJobRequest.parse({ timeout: null })).toEqual({ timeout: null })
  })
})
