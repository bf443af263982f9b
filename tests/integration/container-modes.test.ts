import { execFileSync } from 'node:child_process'
import { describe, expect, it } from 'vitest'
import { describeDriverConformance } from '../../packages/host/src/drivers/conformance.ts'
import { describeRootConformance } from '../../packages/host/src/drivers/conformance-roots.ts'
import { containerSetup } from '../kit/container-setup.ts'
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

if (canTest('MAGS_REQUIRE_CONTAINER', notRoot)) {
  describeDriverConformance('container with a mounted root', containerSetup({ rootMode: 'mounted' }), { timeScale })
  describeRootConformance('container with a mounted root', containerSetup({ rootMode: 'mounted' }), { timeScale })
  describeDriverConformance('container with shifted ids', containerSetup({ rootMode: 'shifted' }), { timeScale })
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
  // Not what an installation needs, so it is never required by the other switch.
  if (canTest('MAGS_REQUIRE_RUNC', runcMissing())) describeDriverConformance('container by runc', containerSetup({ ociRuntime: 'runc' }), { timeScale })
}
