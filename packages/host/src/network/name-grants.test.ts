import { describe, expect, it } from 'vitest'
import { NameGrants } from './name-grants.ts'

const grant = (address: string, secondsLeft = 10, name = 'a.test') => ({ name, address, secondsLeft })

describe('NameGrants', () => {
  it('asks for a rule only when one would end earlier', () => {
    const grants = new NameGrants()
    expect(grants.add([grant('1.1.1.1')], 0)).toHaveLength(1)
    expect(grants.add([grant('1.1.1.1', 9)], 1_000)).toEqual([])
    expect(grants.add([grant('1.1.1.1', 10)], 1_000)).toHaveLength(1)
    expect(grants.add([grant('1.1.1.1', 1)], 20_000)).toHaveLength(1)
  })

  it('says what other rules allow of it', () => {
    const grants = new NameGrants()
    grants.add([grant('1.1.1.1'), grant('2.2.2.2', 10, 'b.test')], 0)
    const domains = { allow: [{ name: 'b.test', below: false }], deny: [] }
    expect(grants.under(domains, 4_000)).toEqual([{ name: 'b.test', address: '2.2.2.2', secondsLeft: 6 }])
    expect(grants.under(domains, 10_000)).toEqual([])
  })

  it('is bounded, and what has ended makes room', () => {
    const grants = new NameGrants(2)
    expect(grants.add([grant('1.1.1.1'), grant('1.1.1.2')], 0)).toHaveLength(2)
    expect(grants.add([grant('1.1.1.3')], 0)).toBeUndefined()
    expect(grants.add([grant('1.1.1.3')], 10_000)).toHaveLength(1)
  })

  it('forgets what could not be put into rules', () => {
    const grants = new NameGrants()
    const fresh = grants.add([grant('1.1.1.1')], 0) ?? []
    grants.forget(fresh)
    expect(grants.add([grant('1.1.1.1')], 0)).toHaveLength(1)
  })
})
