import type { RefusedConnection } from '@mags/protocol'
import { describe, expect, it, vi } from 'vitest'
import { FakeTimers } from '../testing/fake-timers.ts'
import { JobEgress, type JobEgressDeps } from './job-egress.ts'

function setUp({
  storedBytes = null,
  isAdopted = false,
  hasRules = true,
  failStores = 0,
}: Partial<Pick<JobEgressDeps, 'storedBytes'>> & { isAdopted?: boolean; hasRules?: boolean; failStores?: number } = {}) {
  const rows: string[] = []
  const stored: number[] = []
  const listeners = new Set<(refused: RefusedConnection) => void>()
  const state = { bytes: 0, failStores }
  const timers = new FakeTimers()
  const warn = vi.fn()
  const egress = new JobEgress({
    storedBytes,
    log: { system: async (text) => void rows.push(text) },
    storeBytes: async (bytes) => {
      if (state.failStores-- > 0) throw new Error('no database')
      stored.push(bytes)
    },
    logger: { warn },
    timers,
  })
  const gone = Promise.withResolvers<void>()
  const sandbox = (counter: { bytes: number } = state) => ({
    egressBytes: async () => counter.bytes,
    egressTotal: gone.promise.then(() => counter.bytes),
    watchRefused: (listener: (refused: RefusedConnection) => void) => {
      listeners.add(listener)
      return async () => void listeners.delete(listener)
    },
  })
  egress.watch(sandbox(), { isAdopted, hasRules })
  /** The job's end, and then its sandbox's. */
  const end = async () => {
    await egress.finish()
    gone.resolve()
    await gone.promise
    await Promise.resolve()
  }
  const refuse = (refused: RefusedConnection) => {
    for (const listener of listeners) listener(refused)
  }
  return { egress, end, rows, stored, listeners, state, timers, warn, refuse, sandbox }
}

describe('JobEgress', () => {
  it('writes a row for what was refused', () => {
    const { refuse, rows } = setUp()
    refuse({ protocol: 'tcp', address: '203.0.113.7', port: 443 })
    refuse({ protocol: 'udp', address: 'evil.test', port: 53 })
    refuse({ protocol: 'other', address: '203.0.113.7', port: 0 })
    expect(rows).toEqual([
      'refused: tcp 203.0.113.7:443 (egress policy)',
      'refused: the name evil.test (egress policy)',
      'refused: 203.0.113.7 (egress policy)',
    ])
  })

  it('writes sixteen rows a minute and counts the rest', async () => {
    const { refuse, rows, timers } = setUp()
    for (let port = 1; port <= 40; port++) refuse({ protocol: 'tcp', address: '203.0.113.7', port })
    expect(rows).toHaveLength(16)
    timers.end(30_000)
    await vi.waitFor(() => expect(rows.at(-1)).toBe('refused: 24 more targets (egress policy)'), 10_000)
    timers.pass(60_000)
    refuse({ protocol: 'tcp', address: '203.0.113.7', port: 99 })
    expect(rows.at(-1)).toBe('refused: tcp 203.0.113.7:99 (egress policy)')
  })

  it('stores what was sent every 30 s and at the end, once per value', async () => {
    const { end, stored, state, timers, listeners } = setUp({ storedBytes: 100 })
    state.bytes = 5
    timers.end(30_000)
    await vi.waitFor(() => expect(stored).toEqual([105]), 10_000)
    await vi.waitFor(() => expect(timers.pending).toEqual([30_000]), 10_000)
    timers.end(30_000)
    state.bytes = 9
    await end()
    expect(stored).toEqual([105, 109])
    expect(listeners.size).toBe(0)
    expect(timers.pending).toEqual([])
  })

  it('does not count twice what an adopted sandbox had sent before', async () => {
    const { end, stored, state } = setUp({ storedBytes: 100, isAdopted: true })
    state.bytes = 130
    await end()
    expect(stored).toEqual([130])
  })

  it('keeps what earlier sandboxes of an adopted one sent', async () => {
    const { end, stored, state, timers } = setUp({ storedBytes: 100, isAdopted: true })
    state.bytes = 30
    timers.end(30_000)
    await vi.waitFor(() => expect(timers.pending).toEqual([30_000]), 10_000)
    state.bytes = 40
    await end()
    expect(stored).toEqual([110])
  })

  it('adds up what sandboxes sent that followed one another', async () => {
    const { egress, end, stored, state, timers, sandbox, listeners } = setUp()
    state.bytes = 10
    timers.end(30_000)
    await vi.waitFor(() => expect(stored).toEqual([10]), 10_000)
    egress.watch(sandbox({ bytes: 7 }), { hasRules: true })
    expect(listeners.size).toBe(1)
    await end()
    expect(stored).toEqual([10, 17])
  })

  it('counts a short job without rules of its own after its end, and does not listen for it', async () => {
    const { end, stored, state, listeners, timers } = setUp({ hasRules: false })
    state.bytes = 12
    expect(listeners.size).toBe(0)
    await end()
    expect(stored).toEqual([12])
    expect(timers.pending).toEqual([])
  })

  it('listens for one that goes on', async () => {
    const { listeners, timers } = setUp({ hasRules: false })
    timers.end(2000)
    await vi.waitFor(() => expect(listeners.size).toBe(1), 10_000)
  })

  it('stores nothing for a job that sent nothing', async () => {
    const { end, stored } = setUp()
    await end()
    expect(stored).toEqual([])
  })

  it('writes nothing any more after detach, though a last look finds something', () => {
    const { egress, refuse, rows, listeners } = setUp()
    const [late] = listeners
    egress.detach()
    late?.({ protocol: 'tcp', address: '203.0.113.7', port: 443 })
    refuse({ protocol: 'tcp', address: '203.0.113.7', port: 443 })
    expect(rows).toEqual([])
  })

  it('is over after detach', async () => {
    const { egress, listeners, timers, stored, sandbox } = setUp()
    egress.detach()
    egress.watch(sandbox())
    expect(listeners.size).toBe(0)
    expect(timers.pending).toEqual([])
    expect(stored).toEqual([])
  })

  it('stores again what could not be stored', async () => {
    const { end, stored, state, timers, warn } = setUp({ failStores: 1 })
    state.bytes = 7
    timers.end(30_000)
    await vi.waitFor(() => expect(warn).toHaveBeenCalledOnce(), 10_000)
    await end()
    expect(stored).toEqual([7])
  })
})
