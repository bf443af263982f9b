import { execFileSync } from 'node:child_process'
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describeDriverConformance } from '../../packages/host/src/drivers/conformance.ts'
import type { ConformanceSetup } from '../../packages/host/src/drivers/conformance-setup.ts'
import type { ContainerRecord } from '../../packages/host/src/drivers/container/container-sandbox.ts'
import { containerGround, defaultShape } from '../kit/container-ground.ts'
import { canTest, notRoot } from '../kit/require.ts'

/** Emulated machines are slow, see tests/compat. */
const timeScale = Number(process.env.MAGS_TIME_SCALE ?? 1)

if (canTest('MAGS_REQUIRE_CONTAINER', notRoot)) {
  const setUp = async (): Promise<ConformanceSetup> => {
    const ground = await containerGround()
    const { driver } = await ground.open()
    return {
      driver,
      shape: defaultShape,
      real: true,
      broken: { shape: { ...defaultShape, vcpus: 0 }, words: /the kernel refused the limit 0/ },
      reopen: async () => (await ground.open()).driver,
      kill: async (sandbox) => {
        const record = JSON.parse(readFileSync(join(ground.runDir, 'c', sandbox.id, 'record.json'), 'utf8')) as ContainerRecord
        execFileSync('kill', ['-KILL', `${record.process?.pid}`])
      },
      dispose: async () => {
        // What the suite left alive would keep the control groups busy.
        await driver.close()
        const left = readdirSync(join(ground.runDir, 'c'))
        await ground[Symbol.asyncDispose]()
        if (left.length > 0) throw new Error(`left behind: ${left.join(', ')}`)
      },
    }
  }
  describeDriverConformance('container', setUp, { timeScale })
}
