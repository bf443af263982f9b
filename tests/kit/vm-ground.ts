import { randomBytes } from 'node:crypto'
import { existsSync } from 'node:fs'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { pino } from 'pino'
import { openCgroupTree } from '../../packages/host/src/cgroups/cgroup-tree.ts'
import { type Dialer, DialerClient } from '../../packages/host/src/dialer/dialer-client.ts'
import { openVmDriver, type VmDriver } from '../../packages/host/src/drivers/vm/vm-driver.ts'
import { ImageCatalogue } from '../../packages/host/src/images/image-catalogue.ts'
import { MounterClient } from '../../packages/host/src/mounter/mounter-client.ts'
import { openNetwork, type SandboxNetwork } from '../../packages/host/src/network/sandbox-network.ts'
import { systemDir } from './container-ground.ts'
import { root } from './daemon.ts'
import { notRoot } from './require.ts'

export const vmShape = { image: 'debian-12', vcpus: 1, memoryMb: 256, diskGb: 2 }
const native = join(root, 'native/build')

/** What is missing for real machines, in words. */
export function missingForVms(): string | undefined {
  const needed = [join(systemDir, 'kernels/current/vmlinux'), join(systemDir, 'images', vmShape.image, 'current/root.erofs'), join(native, 'mounter')]
  return notRoot ?? needed.filter((path) => !existsSync(path)).map((path) => `there is no ${path}; \`./mags setup\` makes it`)[0]
}

export interface VmGround extends AsyncDisposable {
  readonly driver: VmDriver
  readonly network: SandboxNetwork
}

/** Everything below a driver of virtual machines, for real, in folders of its own. */
export async function vmGround(wish: { readonly lendDialer?: (dialer: DialerClient) => Dialer } = {}): Promise<VmGround> {
  await using undo = new AsyncDisposableStack()
  const instance = randomBytes(3).toString('hex')
  const logger = pino({ level: 'silent' })
  const dir = await mkdtemp(join(tmpdir(), 'mags-vm-'))
  undo.defer(() => rm(dir, { recursive: true }))
  const mounter = await MounterClient.start({ binary: join(native, 'mounter'), logFile: join(dir, 'mounter.log') })
  undo.defer(() => mounter.close())
  const dialer = await DialerClient.start({ binary: join(native, 'mounter'), logFile: join(dir, 'dialer.log') })
  undo.defer(() => dialer.close())
  const cgroups = await openCgroupTree()
  undo.defer(() => cgroups.remove(`/mags/${instance}`))
  const images = await ImageCatalogue.open(join(systemDir, 'images'))
  const network = await openNetwork({ instance, runDir: dir, logger })
  undo.defer(() => network.close({ keep: false }))
  const driver = await openVmDriver({
    kernelDir: join(systemDir, 'kernels/current'),
    agentPath: join(native, 'agent'),
    // Templates take long to make and are kept: the daemon's own folder for them.
    cacheDir: join(systemDir, 'cache', 'vm'),
    vmDir: join(dir, 'vm'),
    images,
    defaultShape: vmShape,
    sealer: mounter,
    taps: network,
    cgroups,
    cgroupParent: `/mags/${instance}/vm`,
    logger,
    dialer: wish.lendDialer?.(dialer) ?? dialer,
  })
  undo.defer(() => driver.close())
  const lent = undo.move()
  return { driver, network, [Symbol.asyncDispose]: () => lent.disposeAsync() }
}
