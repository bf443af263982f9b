import { expect, it } from 'vitest'
import { SessionEnvironment } from './session-environment.ts'

it('takes names of the list only', () => {
  const environment = new SessionEnvironment()
  expect(environment.add('TZ', 'UTC-3')).toBe(true)
  expect(environment.add('GIT_PROTOCOL', 'version=2')).toBe(true)
  for (const name of ['LANG', 'LC_ALL', 'LC_CTYPE', 'LD_PRELOAD', 'PATH', 'BASH_ENV', 'LC_', 'lang', 'LANG=x', 'GIT_\n', '__proto__'])
    expect(environment.add(name, 'x'), name).toBe(false)
  expect(environment.add('LC_OWN', 'a\0b')).toBe(false)
  expect(environment.values).toEqual({ TZ: 'UTC-3', GIT_PROTOCOL: 'version=2' })
})

it('is bounded in number and size', () => {
  const environment = new SessionEnvironment()
  for (let i = 0; i < 100; i++) environment.add(`GIT_${i}`, 'x')
  expect(Object.keys(environment.values)).toHaveLength(64)
  expect(environment.add('GIT_0', 'x'.repeat(40_000))).toBe(false)
  expect(environment.add('GIT_0', 'y'.repeat(30_000))).toBe(true)
  expect(environment.add('GIT_1', 'y'.repeat(3_000))).toBe(false)
})
