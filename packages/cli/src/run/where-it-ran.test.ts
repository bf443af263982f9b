import { describe, expect, it } from 'vitest'
import { describePool } from './waiting-note.ts'
import { describeWhere, milliseconds } from './where-it-ran.ts'

const status = {
  isolation: 'container',
  vm_id: '3f2a90c1d2e4',
  image: 'debian-12',
  start_duration_ms: 6.04,
  script_duration_ms: 12.4,
  exit_code: 0,
  completed_at: 'x',
} as const

describe('words about a job', () => {
  it('say where it ran and how long it took', () => {
    expect(describeWhere(status)).toBe('ran in container 3f2a90c1d2e4 (debian-12), started in 6 ms, took 12 ms')
    expect(describeWhere({ ...status, isolation: 'emulated-vm', exit_code: null, completed_at: null, script_duration_ms: null })).toBe(
      'runs in emulated virtual machine 3f2a90c1d2e4 (debian-12), started in 6 ms',
    )
    expect(describeWhere({ ...status, isolation: null })).toBe('no sandbox was taken')
    expect([0.26, 9.94, 10.5, 9999, 65_432].map(milliseconds)).toEqual(['0.3 ms', '9.9 ms', '11 ms', '9999 ms', '65.4 s'])
  })

  it('say why it waits', () => {
    const pool = { idle_vms: 0, busy_vms: 4, max_pool_size: 4, last_failure: null }
    expect(describePool(pool)).toContain('all 4 that this server may have are busy')
    expect(describePool({ ...pool, max_pool_size: 0 })).toContain('none is ready, 4 are busy')
    expect(describePool({ ...pool, last_failure: 'crun: no cgroup' })).toContain('crun: no cgroup')
  })
})
