import { execFileSync } from 'node:child_process'
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import type { ConformanceSetup } from '../../packages/host/src/drivers/conformance-setup.ts'
import type { ContainerRecord } from '../../packages/host/src/drivers/container/container-sandbox.ts'
import { type ContainerWish, containerGround, defaultShape } from './container-ground.ts'

/** What the conformance suite needs of a container driver. */
export const containerSetup = (wish: ContainerWish) => async (): Promise<ConformanceSetup> => {
  const ground = await containerGround(wish)
  const { driver } = await ground.open()
  return {
    driver,
    shape: defaultShape,
    real: true,
    copiesFiles: wish.rootMode !== 'shifted',
    broken: { shape: { ...defaultShape, vcpus: 0 }, words: /the kernel refused the limit 0/ },
    disksDir: ground.dataDir,
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
