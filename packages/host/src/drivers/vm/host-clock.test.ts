import { describe, expect, it } from 'vitest'
import { parseTscKhz, readTscKhz } from './host-clock.ts'

const cpuinfo = 'model name\t: Some CPU @ 2.30GHz\ncpu MHz\t\t: 3100.007\n'

describe('parseTscKhz', () => {
  it('prefers what the kernel measured, the refined figure first', () => {
    const detected = '[    0.000058] tsc: Detected 2596.120 MHz processor\n'
    expect(parseTscKhz(detected, cpuinfo)).toBe(2_596_120)
    expect(parseTscKhz(`${detected}[    1.2] tsc: Refined TSC clocksource calibration: 2595.124 MHz\n`, cpuinfo)).toBe(2_595_124)
  })

  it('takes the name of the processor before its frequency of the moment', () => {
    expect(parseTscKhz('', cpuinfo)).toBe(2_300_000)
    expect(parseTscKhz('', 'model name : AMD EPYC\ncpu MHz : 2596.120\n')).toBe(2_596_120)
  })

  it('refuses a machine that tells nothing', () => {
    expect(() => parseTscKhz('', 'processor : 0\n')).toThrow('neither in the kernel log')
  })
})

describe('readTscKhz', () => {
  it('finds one on this machine', async () => {
    expect(await readTscKhz()).toBeGreaterThan(100_000)
  })
})
