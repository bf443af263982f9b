import { mkdir } from 'node:fs/promises'
import { hostname } from 'node:os'
import { dirname, join } from 'node:path'
import type { GatewayDirectory, HostApi } from '@mags/protocol'
import type { FastifyInstance } from 'fastify'
import type { Logger } from 'pino'
import { Directory } from './access/directory.ts'
import type { KeyDownloads } from './access/key-downloads.ts'
import { LiveJobs } from './access/live-jobs.ts'
import { readSecretKey } from './access/secret-key.ts'
import { SshKeyStore } from './access/ssh-key-store.ts'
import { AccessStore } from './access/store.ts'
import { KnownAliases } from './aliases/known-aliases.ts'
import { AliasStore } from './aliases/store.ts'
import { CronScheduler } from './cron/cron-scheduler.ts'
import { keepCronFiles } from './cron/keep-files.ts'
import { CronStore } from './cron/store.ts'
import { FileFolder } from './files/file-folder.ts'
import { FileStore } from './files/store.ts'
import { UploadedFiles } from './files/uploaded-files.ts'
import { createMetrics } from './health/metrics.ts'
import { buildApp } from './http/build-app.ts'
import { removeContexts } from './images/build-from-context.ts'
import { BuildCache } from './images/cache/build-cache.ts'
import { BuildCacheStore } from './images/cache/store.ts'
import { ImageTasks } from './images/image-tasks.ts'
import { ImageUsers } from './images/image-users.ts'
import { ImageTaskStore } from './images/store.ts'
import { purgeLeases } from './ip-leases/store.ts'
import { JobDefinitionStore } from './job-api/store.ts'
import { Dispatcher } from './jobs/dispatcher.ts'
import { IdempotencyStore } from './jobs/idempotency-store.ts'
import { recoverJobs, stoppedWhileRunning } from './jobs/recover-jobs.ts'
import { memoryAvailable } from './jobs/sleep/memory-available.ts'
import { SleepWatch } from './jobs/sleep/sleep-watch.ts'
import { JobStore } from './jobs/store.ts'
import { LogStore } from './logs/log-store.ts'
import { MicrovmKeeper } from './microvms/microvm-keeper.ts'
import { MicrovmStore } from './microvms/store.ts'
import { type DatabaseConfig, openDatabase } from './state/database.ts'
import { GroupCommit } from './state/group-commit.ts'
import { timestamp } from './state/timestamp.ts'
import { TemplateStore } from './templates/store.ts'
import { TokenStore } from './tokens/store.ts'
import { Tokens } from './tokens/tokens.ts'
import { LeftSaver } from './workspaces/save-left.ts'
import { WorkspaceStore } from './workspaces/store.ts'
import { tendWorkspaces } from './workspaces/tend-workspaces.ts'
import { realTimers, type Timers } from './workspaces/timers.ts'
import { Turns } from './workspaces/turns.ts'

const hourMs = 3600 * 1000
const dayMs = 24 * hourMs

/** What an operator may bound; every member has a default. */
export interface ServerLimits {
  /** Jobs that may wait; over it a submit answers 503. Default 2,000. */
  readonly maxPendingJobs?: number
  /** The same of one account; over it a submit answers 429. Default 0: no bound of its own. */
  readonly maxPendingJobsPerAccount?: number
  /** Jobs of one account with a sandbox that is awake; others wait. Jobs that run when it is lowered go on. Default 0: no bound. */
  readonly maxRunningJobsPerAccount?: number
  /** The longest that a job may run; one that is persistent may stay unless it asks for a time. Default 0: no bound. */
  readonly maxJobSeconds?: number
  /** Bytes of a job's log file. Default 64 MiB. */
  readonly maxLogBytes?: number
  /** A request must have arrived whole within this. Default 30,000. */
  readonly requestTimeoutMs?: number
  /** How long `drain` waits for running jobs. Default 10,000. */
  readonly drainGraceMs?: number
  /** From SIGTERM to the end of the sandbox after a stop. Default 2,000. */
  readonly stopGraceMs?: number
  /** The same after a timeout. Default 5,000. */
  readonly timeoutGraceMs?: number
  /** Between two saves of a running job's workspace. Default 30,000. */
  readonly syncIntervalMs?: number
  /** How long the end of a job waits for its workspace to be saved, while the object store does not answer. Default 120,000. */
  readonly saveWaitMs?: number
  /** The same after a stop, and when the server ends. Default 10,000. */
  readonly stopSaveWaitMs?: number
  /** Between two looks at what nobody uses; 0: no job is put to sleep by itself. Default 60,000. */
  readonly sleepCheckMs?: number
  /** Of what is kept of the steps of Dockerfiles, in bytes; 0: nothing is. Default 10 GiB. */
  readonly buildCacheBytes?: number
  /** A persistent job that nothing used for so long sleeps. Default 600,000. */
  readonly sleepAfterMs?: number
  /** One that slept for so long gives its memory back. Default 3,600,000. */
  readonly releaseAfterMs?: number
}

export interface ServerDeps {
  readonly database: DatabaseConfig
  readonly host: HostApi
  /** Folder of the jobs' log files; made when missing. */
  readonly logsDir: string
  /** Folder of uploaded files; made when missing. Nothing else may be in it. */
  readonly filesDir: string
  readonly logger: Logger
  readonly version: string
  /** Where clients reach this server, such as `http://127.0.0.1:7070`. */
  readonly publicUrl: string
  /** Domain of the jobs' URLs, with scheme, such as `https://apps.example.org`; jobs have no `url` without it. A function when it is not known before the gateway listens. */
  readonly appsUrl?: string | (() => string | undefined)
  /**
   * What SSH clients connect to; jobs have no SSH without it. `portFirst`: the first of 10,000 ports that jobs get, default 40,000. `portFailure`: settles when a port is listened on, or with why it cannot be.
   * `portIsFree`: whether no other program has it; absent, all are.
   */
  readonly ssh?: {
    readonly host: string
    readonly portFirst?: number
    readonly portFailure?: (port: number) => Promise<string | undefined>
    readonly portIsFree?: (port: number) => Promise<boolean>
  }
  /** File with the key that seals private keys in the database; made when missing. Default `server.key` beside `logsDir`. */
  readonly secretKeyFile?: string
  /** Share of the machine's memory that programs could still have, 0 to 1; default from /proc/meminfo. */
  readonly memoryAvailable?: () => Promise<number>
  /** How often the private key of a microVM can be downloaded; default `always`. */
  readonly vmKeyDownloads?: KeyDownloads
  readonly limits?: ServerLimits
  /** Wall clock in ms since 1970; default `Date.now`. Durations and timers never use it. */
  readonly clock?: () => number
  /** Waits and chance of what saves workspaces; default the real ones. */
  readonly timers?: Timers
}

export interface MagsTokens {
  /** Makes a token and returns its secret, which is not stored and cannot be shown again. */
  create(name: string): Promise<string>
  /** Whether a secret is a known token. */
  verify(secret: string): Promise<boolean>
  count(): Promise<number>
}

export interface MagsServer {
  /** The HTTP side; the caller calls `app.listen`. */
  readonly app: FastifyInstance
  readonly tokens: MagsTokens
  /** For the gateway: who is meant by a host name or an SSH port, and the way to it. */
  readonly directory: GatewayDirectory
  /** Recovers what a former process left behind, calls `host.settle()`, then dispatches. Before it, submits are stored but not run. */
  start(): Promise<void>
  /** Refuses new jobs (503), waits for running jobs that are not persistent, at most `drainGraceMs`, then ends them as `error`. Pending ones stay for the next start. */
  drain(): Promise<void>
  /** Drains if that was not done, closes the HTTP side, the logs and the database. Call it before `host.close`. */
  close(): Promise<void>
}

/** Opens the database (migrations included) and builds the server; nothing runs until `start`. */
export async function createServer(deps: ServerDeps): Promise<MagsServer> {
  const { host, logger, clock = Date.now, timers = realTimers, limits = {} } = deps
  await using undo = new AsyncDisposableStack()
  await mkdir(deps.logsDir, { recursive: true, mode: 0o700 })
  const database = await openDatabase(deps.database)
  undo.defer(() => database.destroy())
  const commits = new GroupCommit(database, deps.database.kind, logger)
  const store = new JobStore(database, commits)
  const idempotency = new IdempotencyStore(database)
  const tokens = new Tokens({ store: new TokenStore(database), clock, logger })
  const logs = new LogStore({ directory: deps.logsDir, maxBytes: limits.maxLogBytes ?? 64 * 1024 * 1024, clock, logger })
  const metrics = createMetrics(host)
  const workspaces = new WorkspaceStore(database, commits)
  const turns = new Turns()
  const left = new LeftSaver({ workspaces, host, turns, timers, clock, logger, metrics })
  const saving = {
    ...{ workspaces, turns, left, timers, clock, logger, metrics },
    syncIntervalMs: limits.syncIntervalMs ?? 30_000,
    saveWaitMs: limits.saveWaitMs ?? 120_000,
    stopSaveWaitMs: limits.stopSaveWaitMs ?? 10_000,
  }
  const folder = new FileFolder(deps.filesDir)
  await folder.prepare()
  const files = new UploadedFiles({ store: new FileStore(database, commits), folder, clock })
  const runDeps = {
    ...{ store, host, logs, files, clock, logger, metrics, saving },
    stopGraceMs: limits.stopGraceMs ?? 2000,
    timeoutGraceMs: limits.timeoutGraceMs ?? 5000,
    maxJobSeconds: limits.maxJobSeconds ?? 0,
  }
  const { appsUrl: givenUrl } = deps
  const appsUrl = typeof givenUrl === 'function' ? givenUrl : () => givenUrl
  const secretKey = await readSecretKey(deps.secretKeyFile ?? join(dirname(deps.logsDir), 'server.key'))
  const { portFirst = 40_000, portIsFree = async () => true } = deps.ssh ?? {}
  const access = new AccessStore({ database, commits, secretKey, clock, portFirst, portIsFree })
  const live = new LiveJobs(access, logger)
  const dispatcher = new Dispatcher({
    ...runDeps,
    maxPendingJobs: limits.maxPendingJobs ?? 2000,
    maxPendingJobsPerAccount: limits.maxPendingJobsPerAccount ?? 0,
    maxRunningJobsPerAccount: limits.maxRunningJobsPerAccount ?? 0,
    accounts: () => tokens.accounts.size,
    onTracked: (job, run) => live.add(job, run),
  })
  const aliasStore = new AliasStore(database, commits)
  const aliases = new KnownAliases(aliasStore)
  const crons = new CronStore(database, commits)
  const cronScheduler = new CronScheduler({ ...runDeps, crons, idempotency, workspaces, commits, dispatcher })
  metrics.watchJobs(() => ({ pending: dispatcher.pending, running: dispatcher.running, sleeping: dispatcher.sleeping }))
  const taskStore = new ImageTaskStore(database, commits)
  const imageTasks = new ImageTasks({ taskStore, logs, host, clock, logger })
  const cacheStore = new BuildCacheStore(database, commits)
  const buildCache = new BuildCache({ cacheStore, host, clock, logger, maxBytes: limits.buildCacheBytes ?? 10 * 1024 ** 3 })
  const contextsDir = join(dirname(deps.logsDir), 'image-contexts')
  const sshKeys = new SshKeyStore(database, commits)
  const microvms = new MicrovmStore(database, commits)
  const keeper = new MicrovmKeeper({ ...runDeps, microvms, workspaces, commits, dispatcher, turns, timers })
  const directory = new Directory({ live, store, workspaces, access, sshKeys, microvms, tokens, aliases, appsUrl, now: () => timers.now() })
  const sleepWatch = new SleepWatch({
    runs: () => dispatcher.runs,
    timers,
    logger,
    checkMs: limits.sleepCheckMs ?? 60_000,
    afterMs: limits.sleepAfterMs ?? 600_000,
    releaseAfterMs: limits.releaseAfterMs ?? 3_600_000,
    memoryAvailable: deps.memoryAvailable ?? (() => memoryAvailable()),
  })
  const shutdown = new AbortController()
  const app = await buildApp({
    ...runDeps,
    idempotency,
    uploads: files,
    workspaces,
    turns,
    left,
    commits,
    dispatcher,
    copies: new Map(),
    aliasStore,
    aliases,
    crons,
    cronScheduler,
    definitions: new JobDefinitionStore(database),
    templates: new TemplateStore(database),
    microvms,
    keeper,
    timers,
    keyDownloads: deps.vmKeyDownloads ?? 'always',
    hostName: hostname(),
    tokens,
    access,
    live,
    sshKeys,
    taskStore,
    imageTasks,
    imageUsers: new ImageUsers(database),
    contextsDir,
    buildCache,
    sshHost: deps.ssh?.host,
    sshPortFailure: deps.ssh?.portFailure ?? (async () => undefined),
    appsUrlNow: appsUrl,
    shutdown: shutdown.signal,
    version: deps.version,
    publicUrl: deps.publicUrl,
    requestTimeoutMs: limits.requestTimeoutMs ?? 30_000,
  })
  let tending: Promise<void> = Promise.resolve()
  const closing = new AbortController()
  const tend = (ended?: readonly string[]) => {
    tending = tending.then(() => buildCache.tend()).then(() => tendWorkspaces({ workspaces, host, turns, left, clock, logger, closing: closing.signal }, ended))
  }
  undo.defer(async () => {
    closing.abort()
    const ended = new AbortController()
    // What is not saved then is found by the next start.
    await Promise.race([Promise.all([left.close(), buildCache.close(), tending]), timers.wait(saving.stopSaveWaitMs, ended.signal).catch(() => undefined)])
    ended.abort()
  })
  undo.defer(() => dispatcher.close())
  undo.defer(() => sleepWatch.close())
  undo.defer(() => cronScheduler.close())
  undo.defer(() => keeper.close())
  undo.defer(() => app.close())
  undo.defer(() => imageTasks.close())
  undo.defer(() => shutdown.abort())
  const purge = () =>
    void idempotency.purge(timestamp(clock() - dayMs)).catch((error: unknown) => logger.warn({ err: error }, 'old Idempotency-Keys could not be deleted'))
  const purgeAddresses = () => purgeLeases(commits, { now: timestamp(clock()), before: timestamp(clock() - hourMs) })
  const sweepFiles = () =>
    void keepCronFiles(crons, files)
      .then(() => files.sweep())
      .catch((error: unknown) => logger.warn({ err: error }, 'old uploaded files could not be deleted'))
  const purging = setInterval(() => {
    purge()
    purgeAddresses().catch((error: unknown) => logger.warn({ err: error }, 'released addresses could not be forgotten'))
    sweepFiles()
    tend()
  }, hourMs)
  undo.defer(() => clearInterval(purging))
  await app.ready()

  const kept = undo.move()
  let draining: Promise<void> | undefined
  const drain = () => {
    // What is due meanwhile is left to the next start.
    draining ??= Promise.all([dispatcher.drain(limits.drainGraceMs ?? 10_000, stoppedWhileRunning), cronScheduler.close(), keeper.close()]).then(
      () => undefined,
    )
    return draining
  }
  let closed: Promise<void> | undefined
  return {
    app,
    directory,
    tokens: {
      create: (name) => tokens.create(name),
      verify: async (secret) => (await tokens.verify(secret)) !== undefined,
      count: () => tokens.count(),
    },
    start: async () => {
      await workspaces.releaseStale()
      await access.purge()
      await tokens.loadAccounts()
      await removeContexts(contextsDir)
      await imageTasks.recover()
      await purgeAddresses()
      const ended = await recoverJobs({ store, host, logs, workspaces, dispatcher, clock, logger })
      dispatcher.start()
      sleepWatch.start()
      cronScheduler.start()
      await keeper.start()
      // In the background: an object store that does not answer must not keep jobs from running.
      tend(ended)
      sweepFiles()
      purge()
    },
    drain,
    close: () => {
      closed ??= drain().then(() => kept.disposeAsync())
      return closed
    },
  }
}
