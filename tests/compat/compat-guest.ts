import { randomBytes } from 'node:crypto'
import { mkdtemp, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { MounterClient, openCgroupTree, openNetwork, openVmDriver } from '@mags/host'
import { pino } from 'pino'
import type { Sandbox } from '../../packages/host/src/drivers/driver.ts'
import type { CompatImage } from './compat-image.ts'

export interface CompatGuest extends AsyncDisposable {
  readonly sandbox: Sandbox
  /** How it runs, in words. */
  readonly detail: string
}

/** As little as a small server has. The container suite needs a fraction of the memory, the test runner the rest. */
const shape = { image: 'compat', vcpus: 2, memoryMb: 2048, diskGb: 8 }
/** Not the default, which the daemon inside uses for its own sandboxes. */
const subnet = '10.214.0.0/16'

/** A sandbox of the vm driver with the compatibility image as its root. */
export async function startGuest(options: { rootDir: string; systemDir: string; image: CompatImage }): Promise<CompatGuest> {
  const { rootDir, systemDir, image } = options
  const native = join(rootDir, 'native', 'build')
  await using undo = new AsyncDisposableStack()
  const instance = randomBytes(3).toString('hex')
  const logger = pino({ level: process.env.MAGS_TEST_LOG ?? 'silent' })
  const dir = await mkdtemp('/var/tmp/mags-compat-')
  undo.defer(() => rm(dir, { recursive: true, force: true }))
  const mounter = await MounterClient.start({ binary: join(native, 'mounter'), logFile: join(dir, 'mounter.log') })
  undo.defer(() => mounter.close())
  const cgroups = await openCgroupTree()
  undo.defer(() => cgroups.remove(`/mags/${instance}`))
  const network = await openNetwork({ instance, runDir: dir, logger, subnet })
  undo.defer(() => network.close({ keep: false }))
  const driver = await openVmDriver({
    kernelDir: join(systemDir, 'kernels', 'current'),
    agentPath: join(native, 'agent'),
    cacheDir: join(image.dir, 'vm'),
    vmDir: join(dir, 'vm'),
    images: { get: (name) => ({ name, digest: image.digest, rootfsDir: '', erofsFile: image.erofsFile }) },
    defaultShape: shape,
    sealer: mounter,
    taps: network,
    cgroups,
    cgroupParent: `/mags/${instance}/vm`,
    logger,
  })
  undo.defer(() => driver.close())
  const sandbox = await driver.create(shape)
  undo.defer(() => sandbox.destroy())
  await sandbox.attach(shape)
  const held = undo.move()
  return { sandbox, detail: driver.detail, [Symbol.asyncDispose]: () => held.disposeAsync() }
}
