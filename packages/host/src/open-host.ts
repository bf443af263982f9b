import { mkdir, rm } from 'node:fs/promises'
import { availableParallelism, totalmem } from 'node:os'
import { join } from 'node:path'
import { type EgressPolicy, type HostApi, type LeasedAddresses, MagsError } from '@mags/protocol'
import type { Logger } from 'pino'
import { type CgroupTree, openCgroupTree } from './cgroups/cgroup-tree.ts'
import { DialerClient } from './dialer/dialer-client.ts'
import { openContainerDriver } from './drivers/container/open-container-driver.ts'
import { DiskRoom } from './drivers/disk-room.ts'
import type { Sandbox, SandboxDriver, SandboxShape } from './drivers/driver.ts'
import { openVmDriver } from './drivers/vm/vm-driver.ts'
import { Egress } from './egress/egress.ts'
import { Host } from './host.ts'
import type { Wall } from './host-parts.ts'
import { DefaultImage } from './images/default-image.ts'
import { ImageCatalogue } from './images/image-catalogue.ts'
import { ImageStore } from './images/image-store.ts'
import { ImageUses } from './images/image-uses.ts'
import { MachineImages } from './images/machine-images.ts'
import { openHostLayer } from './layers/open-host-layer.ts'
import { MounterClient } from './mounter/mounter-client.ts'
import type { Ipv4Range } from './network/ipv4-range.ts'
import { openNetwork, type SandboxNetwork } from './network/sandbox-network.ts'
import { hostNames, linkExists } from './network/sweep-networks.ts'
import { machineHeadroom } from './pool/headroom.ts'
import { WarmPool } from './pool/warm-pool.ts'
import type { BlobStoreConfig } from './workspaces/blobs/blob-store-config.ts'
import { EventualBlobStore } from './workspaces/blobs/eventual-blob-store.ts'
import { openBlobStore } from './workspaces/blobs/open-blob-store.ts'
import { openWorkspaces } from './workspaces/open-workspaces.ts'
import { ObjectWorkspaceRepository } from './workspaces/repository/object-workspace-repository.ts'

/** How a host is set up on this machine. Folders are made when missing. */
export interface HostConfig {
  /** Six hex digits that tell several daemons on one machine apart; part of link, table and group names. */
  readonly instance: string
  /** Shared by all daemons of the machine: images, kernels, caches. World-searchable. */
  readonly systemDir: string
  /** This daemon's own disk space. */
  readonly dataDir: string
  /** This daemon's sockets and records: short, on tmpfs, e.g. `/run/mags/3f2a91`. */
  readonly runDir: string
  readonly agentBinary: string
  readonly mounterBinary: string
  /** Hears why no sandbox can be made any more, and none saved; this process can only end then, and the next one goes on. */
  readonly onBroken?: (reason: string) => void
  /** `auto` offers both walls and prefers VMs where KVM works; otherwise only the one named. */
  readonly isolation: 'auto' | 'vm' | 'container'
  /** What makes containers. */
  readonly ociRuntime: 'crun' | 'runc'
  /** Where versions of workspaces are stored. */
  readonly store: BlobStoreConfig
  readonly defaults: SandboxShape
  /** What images are made of and with; absent: as the settings are by default, and without recipes. */
  readonly images?: {
    /** `defaults.image` is the operator's word; otherwise only what jobs get while nothing was chosen. */
    readonly fixedDefault: boolean
    /** Of all files of an image, and of what it is made of. */
    readonly maxGb: number
    /** Registries in private networks that may be asked, as `HOST:PORT`, or `http://HOST:PORT` for one without TLS. */
    readonly registries: readonly string[]
    /** `setup/steps/image.sh` of the installation. */
    readonly script?: string
  }
  readonly pool: { readonly minSize: number; readonly maxSize: number; readonly idleTtlMs: number }
  readonly dnsServers?: readonly string[]
  /** Private ranges that sandboxes may reach all the same. */
  readonly egressAllow?: readonly string[]
  /** What no sandbox reaches, whatever its policy says; see `readEgressDeny`. */
  readonly egressDeny?: readonly Ipv4Range[]
  /** The policy of jobs that name none; see `readEgressDefault`. */
  readonly egressDefault?: EgressPolicy | undefined
  /** What sandboxes can have addresses out of; see `readAddressPrefixes`. */
  readonly addressPrefixes?: readonly string[]
  readonly logger: Logger
}

interface Ground {
  readonly images: ImageCatalogue
  readonly mounter: MounterClient
  readonly dialer: DialerClient
  readonly cgroups: CgroupTree
  readonly network: SandboxNetwork
}

const acquireTimeoutMs = 30_000
const largestDiskGb = 100
/** Share of the machine's memory that one sandbox may have. */
const memoryShare = 0.9

/** Opens everything this machine offers. Nothing runs until `settle`; what an earlier daemon left can be adopted before that. */
export async function openHost(given: HostConfig): Promise<HostApi> {
  await using undo = new AsyncDisposableStack()
  const [, madeRunDir] = await Promise.all([mkdir(given.dataDir, { recursive: true, mode: 0o700 }), mkdir(given.runDir, { recursive: true, mode: 0o700 })])
  // One that was there may hold records of sandboxes that live on.
  if (madeRunDir !== undefined) undo.defer(() => rm(given.runDir, { recursive: true, force: true }))
  const { images, defaultImage, config } = await openImages(given)
  const layerSocket = join(config.runDir, 'layers.sock')
  const mounter = await MounterClient.start({ binary: config.mounterBinary, logFile: join(config.runDir, 'mounter.log'), layerSocket })
  undo.defer(() => mounter.close())
  void mounter.died.then((error) => config.onBroken?.(error.message))
  const dialer = await DialerClient.start({ binary: config.mounterBinary, logFile: join(config.runDir, 'dialer.log') })
  undo.defer(() => dialer.close())
  const cgroups = await openCgroupTree()
  await sweepDeadGroups(cgroups, config.instance)
  const network = await openNetwork({ ...config, launcher: mounter })
  undo.defer(() => network.close({ keep: false }))

  const ground: Ground = { images, mounter, dialer, cgroups, network }
  const container = config.isolation === 'vm' ? turnedOff('vm') : await containerWall(config, ground)
  const vm = config.isolation === 'container' ? turnedOff('container') : await vmWall(config, ground)
  const preferVm = !('missing' in vm) && ('missing' in container || vm.driver.isolation === 'kvm')
  if ('missing' in vm && 'missing' in container) {
    throw new Error(`no kind of sandbox works on this machine; containers: ${container.missing}; VMs: ${vm.missing}; 'mags doctor' says more`)
  }
  const imageUses = new ImageUses()
  const imageSettings = config.images ?? defaultImageSettings
  const machineImages = new MachineImages({
    catalogue: images,
    store: await ImageStore.open(join(config.systemDir, 'images'), config.instance),
    uses: imageUses,
    default: defaultImage,
    defaultShape: { vcpus: config.defaults.vcpus, memoryMb: config.defaults.memoryMb, diskGb: config.defaults.diskGb },
    walls: [container, vm].flatMap((open) => ('missing' in open ? [] : [open])),
    openLayer: (dir) => openHostLayer(layerSocket, dir),
    maxGb: imageSettings.maxGb,
    registries: imageSettings.registries,
    imageScript: imageSettings.script,
    runDir: config.runDir,
    dataDir: config.dataDir,
    logger: config.logger,
  })
  const chosen = preferVm ? vm : container
  if (!('missing' in chosen)) chosen.pool.stock(config.pool.minSize)
  const { store, workspaces } = await openStoredWorkspaces(config, mounter, layerSocket)
  const egress = new Egress({ network, logger: config.logger })
  undo.move()
  return new Host({
    walls: { vm, container },
    default: preferVm ? 'vm' : 'container',
    images,
    machineImages,
    imageUses,
    workspaces,
    addressPrefixes: config.addressPrefixes ?? [],
    lease: (sandbox, addresses) => leaseTo(network, sandbox, addresses),
    egress,
    defaultShape: config.defaults,
    limits: { maxVcpus: availableParallelism(), maxMemoryMb: Math.floor((totalmem() / 2 ** 20) * memoryShare), maxDiskGb: largestDiskGb },
    pool: config.pool,
    freeNetworkLeftovers: () => network.freeUnadopted(),
    release: async ({ keepNetwork }) => {
      store.close()
      egress.close()
      await network.close({ keep: keepNetwork })
      await dialer.close()
      await mounter.close()
      if (keepNetwork) return
      await cgroups.remove(`/mags/${config.instance}`)
      await rm(config.runDir, { recursive: true, force: true })
    },
  })
}

const defaultImageSettings = { fixedDefault: false, maxGb: 20, registries: [], script: undefined }

/** What there is, and with which version of which image sandboxes are kept warm. Rejects with MagsError 'bad_request' when the default is not there. */
async function openImages(config: HostConfig) {
  const { dataDir, systemDir, defaults } = config
  const images = await ImageCatalogue.open(join(systemDir, 'images'))
  const { fixedDefault: fixed } = config.images ?? defaultImageSettings
  const defaultImage = await DefaultImage.open({ dataDir, configured: defaults.image, fixed }, (name) => images.find(name) !== undefined)
  const { name, digest } = images.get(defaultImage.name)
  return { images, defaultImage, config: { ...config, defaults: { ...defaults, image: name, imageDigest: digest } } }
}

async function openStoredWorkspaces(config: HostConfig, mounter: MounterClient, layerSocket: string) {
  const description = config.store.place.kind === 's3' ? `S3 bucket ${config.store.place.s3.bucket}` : `folder ${config.store.place.folder}`
  const store = await EventualBlobStore.open(
    () => openBlobStore(config.store),
    description,
    (error) => config.logger.warn({ err: error }, 'the object store does not answer; jobs with a workspace have to wait for it'),
  )
  const workspaces = await openWorkspaces({
    repository: new ObjectWorkspaceRepository(store),
    dataDir: config.dataDir,
    mounter,
    openLayer: (dir) => openHostLayer(layerSocket, dir),
    defaultDiskGb: config.defaults.diskGb,
    logger: config.logger,
  })
  return { store, workspaces }
}

/** Control groups of daemons that are gone with all they had: the link of their network is the sign of life. Nobody else would ever remove them. */
async function sweepDeadGroups(cgroups: CgroupTree, instance: string) {
  for (const other of await cgroups.children('/mags')) {
    if (/^[0-9a-f]{6}$/.test(other) && other !== instance && !(await linkExists(hostNames(other).link))) await cgroups.remove(`/mags/${other}`)
  }
}

async function leaseTo(network: SandboxNetwork, sandbox: Sandbox, addresses: LeasedAddresses) {
  if (sandbox.network === undefined) throw new MagsError('not_available', 'this sandbox has no network, so it cannot have an address of its own')
  await network.lease(sandbox.network, addresses)
}

const turnedOff = (only: string): Wall => ({ missing: `this server was started for ${only} isolation only (MAGS_ISOLATION)` })

async function containerWall(config: HostConfig, ground: Ground): Promise<Wall> {
  return wall(config, undefined, () =>
    openContainerDriver({
      ...ground,
      ociRuntime: config.ociRuntime,
      mounterBinary: config.mounterBinary,
      agentBinary: config.agentBinary,
      systemDir: config.systemDir,
      cgroupParent: `/mags/${config.instance}/container`,
      runDir: join(config.runDir, 'c'),
      scratchDir: join(config.dataDir, 'scratch'),
      room: new DiskRoom({ dir: config.dataDir, logger: config.logger }),
      defaultShape: config.defaults,
      logger: config.logger,
    }),
  )
}

async function vmWall(config: HostConfig, { images, mounter, dialer, cgroups, network }: Ground): Promise<Wall> {
  return wall(config, undefined, () =>
    openVmDriver({
      kernelDir: join(config.systemDir, 'kernels', 'current'),
      agentPath: config.agentBinary,
      cacheDir: join(config.systemDir, 'cache', 'vm'),
      vmDir: join(config.dataDir, 'vm'),
      images,
      defaultShape: config.defaults,
      sealer: mounter,
      taps: network,
      dialer,
      cgroups,
      cgroupParent: `/mags/${config.instance}/vm`,
      logger: config.logger,
    }),
  )
}

async function wall(config: HostConfig, detail: string | undefined, open: () => Promise<SandboxDriver & { readonly detail?: string }>): Promise<Wall> {
  try {
    const driver = await open()
    return { driver, pool: warmPool(config, driver), detail: detail ?? driver.detail ?? driver.isolation }
  } catch (error) {
    const words = error instanceof Error ? error.message : String(error)
    config.logger.warn({ err: error }, 'one kind of sandbox is not available')
    return { missing: words }
  }
}

function warmPool(config: HostConfig, driver: SandboxDriver) {
  return new WarmPool(driver, {
    defaultShape: config.defaults,
    maxSize: config.pool.maxSize,
    idleTtlMs: config.pool.idleTtlMs,
    headroom: machineHeadroom(),
    // Half of making one is waiting for the kernel.
    createConcurrency: 2 * availableParallelism(),
    acquireTimeoutMs,
    onFailure: (error) => config.logger.warn({ err: error, isolation: driver.isolation }, 'a sandbox could not be made'),
  })
}
