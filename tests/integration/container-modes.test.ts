import { execFileSync } from 'node:child_process'
import { describe, expect, it } from 'vitest'
import { describeDriverConformance } from '../../packages/host/src/drivers/conformance.ts'
import { describeRootConformance } from '../../packages/host/src/drivers/conformance-roots.ts'
import { containerSetup } from '../kit/container-setup.ts'
import { describeLane } from '../kit/describe-lane.ts'
import { canTest, notRoot } from '../kit/require.ts'

/** The same promises where the kernel or the runtime is not what the fast path needs. */
const timeScale = Number(process.env.MAGS_TIME_SCALE ?? 1)

function runcMissing() {
  try {
    execFileSync('runc', ['--version'])
    return undefined
  } catch {
    return 'runc is not installed (apt-get install runc)'
  }
}

/** The owners of an image's files are changed for each sandbox anew, which takes seconds; what agents and freezers do is not about them. All of it with MAGS_LONG=1. */
const shiftedGroups = process.env.MAGS_LONG === '1' ? {} : ({ groups: ['end', 'restart', 'fork'] } as const)

const testMounted = () => {
  describeDriverConformance('container with a mounted root', containerSetup({ rootMode: 'mounted' }), { timeScale })
  describeRootConformance('container with a mounted root', containerSetup({ rootMode: 'mounted' }), { timeScale })
}

const testShifted = () => {
  describeDriverConformance('container with shifted ids', containerSetup({ rootMode: 'shifted' }), { timeScale: 4 * timeScale, ...shiftedGroups })
  describe('containers with shifted ids', () => {
    it('refuse the disks of workspaces with words, and take nothing for that', async () => {
      const { driver, shape, dispose } = await containerSetup({ rootMode: 'shifted' })()
      try {
        await expect(driver.create(shape, { lowerDisks: [] })).rejects.toMatchObject({
          code: 'not_available',
          message: expect.stringContaining('isolation "vm"'),
        })
      } finally {
        await dispose()
      }
    })
  })
}

if (canTest('MAGS_REQUIRE_CONTAINER', notRoot)) {
  describeLane('shifted', testShifted)
  describeLane('others', () => {
    testMounted()
    // Not what an installation needs, so it is never required by the other switch.
    if (canTest('MAGS_REQUIRE_RUNC', runcMissing())) describeDriverConformance('container by runc', containerSetup({ ociRuntime: 'runc' }), { timeScale })
  })
}
