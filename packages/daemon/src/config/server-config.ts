import { createHash } from 'node:crypto'
import { mkdirSync, statSync } from 'node:fs'
import { join, resolve } from 'node:path'
import {
  type BlobStoreConfig,
  describeUnsupportedRuntime,
  type OciRuntime,
  readAddressPrefixes,
  readBlobStoreConfig,
  readEgressDefault,
  readEgressDeny,
} from '@mags/host'
import { MagsError } from '@mags/protocol'
import { type GatewayConfig, readGatewayConfig } from './gateway-config.ts'
import { type Environment, list, oneOf, wholeNumber } from './settings.ts'

/** Everything an operator can set. Command line before environment before default. */
export interface ServerConfig {
  readonly host: string
  readonly port: number
  /** Shared by all daemons of this machine: images, kernels, caches. */
  readonly systemDir: string
  /** This daemon's state: database, logs, scratch disks. */
  readonly dataDir: string
  /** Sockets and records on tmpfs. */
  readonly runDir: string
  /** Six hex digits: which folder this is, even when another root file system has one of the same name. */
  readonly instance: string
  readonly databaseUrl: string | undefined
  readonly isolation: 'auto' | 'vm' | 'container'
  /** What makes containers. */
  readonly ociRuntime: OciRuntime
  /** Where versions of workspaces are stored. */
  readonly store: BlobStoreConfig
  /** How often a running sandbox's workspace is saved when it has changed, and how long the end of a job waits for an object store that does not answer. */
  readonly workspaces: { readonly syncEveryMs: number; readonly saveWaitMs: number }
  readonly defaults: { readonly image: string; readonly vcpus: number; readonly memoryMb: number; readonly diskGb: number }
  /** How images are made, and whether the default one is the operator's word. */
  readonly images: { readonly fixedDefault: boolean; readonly maxGb: number; readonly registries: readonly string[] }
  /** How much is kept of the steps of Dockerfiles; 0: nothing. */
  readonly buildCacheGb: number
  readonly pool: { readonly minSize: number; readonly maxSize: number; readonly idleTtlMs: number }
  readonly gateway: GatewayConfig
  /** When persistent jobs that nobody uses sleep, how often that is looked at, and when sleeping ones give their memory back. */
  readonly sleep: { readonly afterMs: number; readonly checkMs: number; readonly releaseAfterMs: number }
  /** What one account may have at once, and how long a job may run; 0: no bound. */
  readonly jobs: { readonly maxRunningPerAccount: number; readonly maxPendingPerAccount: number; readonly maxSeconds: number }
  /** How often the private key that was made for a microVM can be downloaded. */
  readonly vmKeyDownloads: 'always' | 'once'
  readonly dnsServers: readonly string[]
  readonly egressAllow: readonly string[]
  readonly egressDeny: ReturnType<typeof readEgressDeny>
  readonly addressPrefixes: readonly string[]
  readonly egressDefault: ReturnType<typeof readEgressDefault>
  readonly logLevel: string
}

export interface ServerOptions {
  readonly host?: string
  readonly port?: number
  readonly dataDir?: string
}

const fiveMinutesMs = 300_000

/** Reads options and environment. Throws MagsError 'bad_request' naming the setting and the rule. */
export function readServerConfig(options: ServerOptions, environment: Environment): ServerConfig {
  const systemDir = resolve(environment.MAGS_SYSTEM_DIR ?? '/var/lib/mags')
  const dataDir = resolve(options.dataDir ?? environment.MAGS_DATA_DIR ?? join(systemDir, 'data'))
  makeDataDir(dataDir)
  const instance = instanceOf(dataDir)
  const host = options.host ?? environment.MAGS_HOST ?? '127.0.0.1'
  const port = options.port ?? wholeNumber(environment, 'MAGS_PORT', 4747, 0, 65_535)
  return {
    host,
    port,
    systemDir,
    dataDir,
    instance,
    runDir: join('/run/mags', instance),
    databaseUrl: environment.DATABASE_URL || undefined,
    isolation: oneOf(environment, 'MAGS_ISOLATION', ['auto', 'vm', 'container']),
    ociRuntime: ociRuntimeOf(environment),
    store: readBlobStoreConfig(environment, join(dataDir, 'objects')),
    workspaces: {
      syncEveryMs: wholeNumber(environment, 'MAGS_SYNC_SECONDS', 30, 1, 86_400) * 1000,
      saveWaitMs: wholeNumber(environment, 'MAGS_SAVE_WAIT_SECONDS', 120, 1, 86_400) * 1000,
    },
    defaults: {
      image: environment.MAGS_DEFAULT_IMAGE || 'debian-12',
      vcpus: wholeNumber(environment, 'MAGS_DEFAULT_VCPUS', 1, 1, 64),
      memoryMb: wholeNumber(environment, 'MAGS_DEFAULT_MEMORY_MB', 512, 128, 1 << 20),
      diskGb: wholeNumber(environment, 'MAGS_DEFAULT_DISK_GB', 2, 1, 1024),
    },
    images: {
      fixedDefault: Boolean(environment.MAGS_DEFAULT_IMAGE),
      maxGb: wholeNumber(environment, 'MAGS_IMAGE_MAX_GB', 20, 1, 10_000),
      registries: list(environment.MAGS_IMAGE_REGISTRIES),
    },
    buildCacheGb: wholeNumber(environment, 'MAGS_BUILD_CACHE_GB', 10, 0, 100_000),
    pool: {
      minSize: wholeNumber(environment, 'MAGS_POOL_MIN', 3, 0, 10_000),
      maxSize: wholeNumber(environment, 'MAGS_POOL_MAX', 0, 0, 10_000),
      idleTtlMs: fiveMinutesMs,
    },
    gateway: readGatewayConfig(environment, { host, port }),
    sleep: {
      afterMs: wholeNumber(environment, 'MAGS_SLEEP_SECONDS', 600, 1, 30 * 86_400) * 1000,
      checkMs: wholeNumber(environment, 'MAGS_SLEEP_CHECK_SECONDS', 60, 1, 3600) * 1000,
      releaseAfterMs: wholeNumber(environment, 'MAGS_RELEASE_SECONDS', 3600, 1, 365 * 86_400) * 1000,
    },
    jobs: {
      maxRunningPerAccount: wholeNumber(environment, 'MAGS_ACCOUNT_MAX_RUNNING', 0, 0, 1_000_000),
      maxPendingPerAccount: wholeNumber(environment, 'MAGS_ACCOUNT_MAX_PENDING', 0, 0, 1_000_000),
      maxSeconds: wholeNumber(environment, 'MAGS_MAX_JOB_SECONDS', 0, 0, 365 * 86_400),
    },
    vmKeyDownloads: oneOf(environment, 'MAGS_VM_KEY_DOWNLOADS', ['always', 'once']),
    dnsServers: list(environment.MAGS_DNS_SERVERS),
    egressAllow: list(environment.MAGS_EGRESS_ALLOW),
    egressDeny: readEgressDeny(environment.MAGS_EGRESS_DENY),
    egressDefault: readEgressDefault(environment.MAGS_EGRESS_DEFAULT),
    addressPrefixes: readAddressPrefixes(environment.MAGS_IP_PREFIXES),
    logLevel: oneOf(environment, 'MAGS_LOG_LEVEL', ['info', 'trace', 'debug', 'warn', 'error', 'silent']),
  }
}

/** Whether it is installed shows when it is started; what can never work is refused here. */
function ociRuntimeOf({ MAGS_OCI_RUNTIME: name = 'crun' }: Environment): OciRuntime {
  const unsupported = describeUnsupportedRuntime(name)
  if (unsupported !== undefined) throw new MagsError('bad_request', `MAGS_OCI_RUNTIME: ${unsupported}`)
  return name as OciRuntime
}

function makeDataDir(dataDir: string) {
  try {
    mkdirSync(dataDir, { recursive: true, mode: 0o700 })
  } catch (error) {
    throw new MagsError(
      'bad_request',
      `the data folder ${dataDir} cannot be made: ${(error as Error).message}; choose another with --data-dir or MAGS_DATA_DIR`,
    )
  }
}

/** By the folder's place on disk rather than its name: two roots on one kernel may each have a /var/lib/mags. */
function instanceOf(dataDir: string) {
  const { dev, ino } = statSync(dataDir)
  return createHash('sha256').update(`${dev}:${ino}`).digest('hex').slice(0, 6)
}
