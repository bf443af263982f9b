import { mkdir, mkdtemp, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { pino } from 'pino'
import { type CgroupTree, openCgroupTree } from '../../packages/host/src/cgroups/cgroup-tree.ts'
import { type Dialer, DialerClient } from '../../packages/host/src/dialer/dialer-client.ts'
import type { ContainerDriver } from '../../packages/host/src/drivers/container/container-driver.ts'
import { type OpenContainerDriverDeps, openContainerDriver } from '../../packages/host/src/drivers/container/open-container-driver.ts'
import type { SandboxShape } from '../../packages/host/src/drivers/driver.ts'
import { ImageCatalogue } from '../../packages/host/src/images/image-catalogue.ts'
import { MounterClient } from '../../packages/host/src/mounter/mounter-client.ts'
import { openNetwork, type SandboxNetwork } from '../../packages/host/src/network/sandbox-network.ts'
import { root } from './daemon.ts'

export const systemDir = process.env.MAGS_SYSTEM_DIR ?? '/var/lib/mags'
export const defaultShape: SandboxShape = { image: 'debian-12', vcpus: 1, memoryMb: 512, diskGb: 2 }
const binary = (name: string) => join(root, 'native/build', name)

/** A runtime and a way to roots other than the best. */
export interface ContainerWish extends Pick<OpenContainerDriverDeps, 'ociRuntime' | 'rootMode'> {
  /** What the driver gets for its dialer. */
  readonly lendDialer?: (dialer: DialerClient) => Dialer
}

export interface ContainerGround extends AsyncDisposable {
  readonly instance: string
  readonly runDir: string
  readonly dataDir: string
  readonly cgroups: CgroupTree
  /** May be called again, as the next daemon would. */
  open(): Promise<{ driver: ContainerDriver; network: SandboxNetwork; mounter: MounterClient }>
}

/** Everything below a container driver, for real, in folders of its own. */
export async function containerGround({ lendDialer = (dialer) => dialer, ...wish }: ContainerWish = {}): Promise<ContainerGround> {
  await using undo = new AsyncDisposableStack()
  const instance = crypto.randomUUID().replaceAll('-', '').slice(0, 6)
  const runDir = `/run/mags/${instance}`
  const dataDir = await mkdtemp('/var/tmp/mags-test-')
  undo.defer(() => rm(dataDir, { recursive: true, force: true }))
  undo.defer(() => rm(runDir, { recursive: true, force: true }))
  const cgroups = await openCgroupTree()
  undo.defer(() => cgroups.remove(`/mags/${instance}`))
  const logger = pino({ level: 'silent' })

  let close: (options: { keep: boolean }) => Promise<void> = async () => undefined
  const open = async () => {
    await close({ keep: true })
    await mkdir(runDir, { recursive: true, mode: 0o700 })
    const mounter = await MounterClient.start({ binary: binary('mounter'), logFile: join(dataDir, 'mounter.log'), layerSocket: join(runDir, 'layers.sock') })
    const dialer = await DialerClient.start({ binary: binary('mounter'), logFile: join(dataDir, 'dialer.log') })
    const network = await openNetwork({ instance, runDir, logger, launcher: mounter })
    close = async ({ keep }) => {
      await network.close({ keep })
      await dialer.close()
      await mounter.close()
    }
    const driver = await openContainerDriver({
      ...wish,
      mounter,
      dialer: lendDialer(dialer),
      network,
      cgroups,
      mounterBinary: binary('mounter'),
      agentBinary: binary('agent'),
      systemDir,
      cgroupParent: `/mags/${instance}/container`,
      runDir: join(runDir, 'c'),
      scratchDir: join(dataDir, 'scratch'),
      images: await ImageCatalogue.open(join(systemDir, 'images')),
      defaultShape,
      logger,
    })
    return { driver, network, mounter }
  }
  undo.defer(() => close({ keep: false }))
  const lent = undo.move()
  return { open, instance, runDir, dataDir, cgroups, [Symbol.asyncDispose]: () => lent.disposeAsync() }
}
