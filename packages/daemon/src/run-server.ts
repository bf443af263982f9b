import { join } from 'node:path'
import process from 'node:process'
import { openHost } from '@mags/host'
import { MagsError } from '@mags/protocol'
import { createServer } from '@mags/server'
import { pino } from 'pino'
import { appsUrlOf } from './config/gateway-config.ts'
import { installation } from './config/installation.ts'
import { readServerConfig, type ServerConfig, type ServerOptions } from './config/server-config.ts'
import { requireFreeSpace } from './start/free-space.ts'
import { takeInstanceLock } from './start/instance-lock.ts'
import { admitLocalClient } from './start/local-client.ts'
import { type OpenGateway, openGateway } from './start/open-gateway.ts'
import { enterPrivateMounts } from './start/private-mounts.ts'
import { untilSignalled } from './start/signals.ts'

/**
 * `mags server`: one process that is server and host. Returns the exit code: 0 after a stop that drained, 1 with a line on standard error when it cannot start.
 */
export async function runServer(options: ServerOptions = {}): Promise<number> {
  if (process.getuid?.() !== 0) {
    process.stderr.write('mags: the server makes namespaces, network links and mounts, so it must run as root; try: sudo mags server\n')
    return 1
  }
  enterPrivateMounts()
  try {
    await serve(readServerConfig(options, process.env))
    return 0
  } catch (error) {
    process.stderr.write(`mags: ${words(error)}\n`)
    return 1
  }
}

async function serve(config: ServerConfig) {
  await using undo = new AsyncDisposableStack()
  const stop = untilSignalled()
  undo.use(stop)
  const logger = pino({ level: config.logLevel }, pino.destination({ dest: 1, sync: true }))
  const taken = `another server runs on the data folder ${config.dataDir}; stop it, or choose another folder with --data-dir`
  undo.use(await takeInstanceLock(config.instance, taken))
  await requireFreeSpace(config.dataDir)
  const { version, agentBinary, mounterBinary, imageScript } = await installation()

  logger.info({ instance: config.instance, dataDir: config.dataDir }, 'starting')
  const broken = Promise.withResolvers<string>()
  const host = await openHost({ ...config, onBroken: broken.resolve, images: { ...config.images, script: imageScript }, agentBinary, mounterBinary, logger })
  undo.defer(() => host.close({ keepPersistent: true }))

  const apiUrl = `http://${config.host.includes(':') ? `[${config.host}]` : config.host}:${config.port}`
  let gateway: OpenGateway | undefined
  const server = await createServer({
    database: config.databaseUrl === undefined ? { kind: 'sqlite', path: join(config.dataDir, 'mags.db') } : { kind: 'postgres', url: config.databaseUrl },
    host,
    logsDir: join(config.dataDir, 'logs'),
    filesDir: join(config.dataDir, 'files'),
    limits: {
      maxRunningJobsPerAccount: config.jobs.maxRunningPerAccount,
      maxPendingJobsPerAccount: config.jobs.maxPendingPerAccount,
      maxJobSeconds: config.jobs.maxSeconds,
      buildCacheBytes: config.buildCacheGb * 1024 ** 3,
      syncIntervalMs: config.workspaces.syncEveryMs,
      saveWaitMs: config.workspaces.saveWaitMs,
      sleepAfterMs: config.sleep.afterMs,
      sleepCheckMs: config.sleep.checkMs,
      releaseAfterMs: config.sleep.releaseAfterMs,
    },
    vmKeyDownloads: config.vmKeyDownloads,
    logger,
    version,
    publicUrl: apiUrl,
    appsUrl: () => gateway && appsUrlOf(config.gateway, gateway.httpPort),
    ssh: {
      host: config.gateway.ssh.publicHost,
      portFirst: config.gateway.ssh.portFirst,
      portFailure: async (port) => await gateway?.sshPortFailure(port),
      portIsFree: async (port) => (await gateway?.sshPortIsFree(port)) ?? true,
    },
  })
  undo.defer(() => server.close())
  await server.start()
  gateway = await openGateway({ config: config.gateway, directory: server.directory, dataDir: config.dataDir, logger })
  const { close } = gateway
  undo.defer(close)
  const address = await listen(server.app, config)
  await admitLocalClient(server.tokens, address)
  const { default: isolation, vm, container } = host.capabilities()
  logger.info(
    { address, urls: appsUrlOf(config.gateway, gateway.httpPort), sshPort: gateway.sshPort, version, isolation, vm: vm.detail, container: container.detail },
    'ready',
  )

  const fault = broken.promise.then((reason) => new MagsError('internal', `${reason}: no sandbox can be made without it; start the server again`))
  const ending = await Promise.race([stop.signalled, fault])
  if (ending instanceof MagsError) logger.fatal({ err: ending }, 'stopping because of a fault: running jobs may end, persistent ones stay')
  else logger.info({ signal: ending }, 'stopping: running jobs may end, persistent ones stay')
  await server.drain()
  if (ending instanceof MagsError) throw ending
}

async function listen(app: Awaited<ReturnType<typeof createServer>>['app'], { host, port }: ServerConfig) {
  try {
    const address = await app.listen({ host, port })
    return address.replace('0.0.0.0', '127.0.0.1').replace('[::]', '127.0.0.1')
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException
    if (code === 'EADDRINUSE') throw new MagsError('bad_request', `port ${port} on ${host} is taken; choose another with --port or MAGS_PORT`, { cause: error })
    throw error
  }
}

function words(error: unknown) {
  if (!(error instanceof Error)) return String(error)
  const { code } = error as NodeJS.ErrnoException
  if (code === 'ENOSPC') return `the disk is full: ${error.message}; free some space and start again`
  if (code === 'EACCES' || code === 'EROFS') return `a folder is not writable: ${error.message}; choose another with --data-dir`
  return error.message
}
