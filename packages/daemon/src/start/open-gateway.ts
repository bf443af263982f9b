import { openHttpGateway, openSshGateway } from '@mags/gateway'
import { type GatewayDirectory, MagsError } from '@mags/protocol'
import type { Logger } from 'pino'
import { type GatewayConfig, hostKeyFileOf } from '../config/gateway-config.ts'
import { readGatewayKey } from './gateway-key.ts'

export interface GatewayDeps {
  readonly config: GatewayConfig
  readonly directory: GatewayDirectory
  readonly dataDir: string
  readonly logger: Logger
}

export interface OpenGateway {
  readonly httpPort: number
  readonly sshPort: number | undefined
  /** As `SshGateway.portFailure`. */
  sshPortFailure(port: number): Promise<string | undefined>
  /** As `SshGateway.portIsFree`. */
  sshPortIsFree(port: number): Promise<boolean>
  close(): Promise<void>
}

/** What reaches jobs from outside: their URLs and SSH. Rejects with MagsError 'bad_request' naming the setting when an address cannot be listened on. */
export async function openGateway({ config, directory, dataDir, logger }: GatewayDeps): Promise<OpenGateway> {
  await using undo = new AsyncDisposableStack()
  const { host, port, appsDomain, tls, trustedProxies, ssh } = config
  const cookieKey = await readGatewayKey(dataDir)
  const http = await onPort({ setting: 'MAGS_GATEWAY_PORT', what: 'URLs', port, explicit: config.portIsSet, logger }, (port) =>
    openHttpGateway({ directory, logger, host, port, appsDomain, cookieKey, ...(tls === undefined ? {} : { tls }), trustedProxies }),
  )
  undo.defer(() => http.close())
  const shell = await onPort({ setting: 'MAGS_SSH_PORT', what: 'SSH', port: ssh.sharedPort, explicit: ssh.sharedPortIsSet, logger }, (sharedPort) =>
    openSshGateway({ directory, logger, host, hostKeyFile: hostKeyFileOf(dataDir), sharedPort }),
  )
  undo.defer(() => shell.close())
  const kept = undo.move()
  return {
    httpPort: http.port,
    sshPort: shell.sharedPort,
    sshPortFailure: (port) => shell.portFailure(port),
    sshPortIsFree: (port) => shell.portIsFree(port),
    close: () => kept.disposeAsync(),
  }
}

interface PortWish {
  readonly setting: string
  readonly what: string
  readonly port: number
  /** The operator named it: nothing else will do. */
  readonly explicit: boolean
  readonly logger: Logger
}

/** A second server on a machine finds the usual ports taken by the first. */
async function onPort<T>({ setting, what, port, explicit, logger }: PortWish, open: (port: number) => Promise<T>): Promise<T> {
  try {
    return await open(port)
  } catch (error) {
    const taken = isTaken(error) && port !== 0
    if (taken && explicit) throw new MagsError('bad_request', `port ${port} for ${what} of jobs is taken; choose another with ${setting}`, { cause: error })
    if (!taken) throw error
    logger.warn({ port }, `port ${port} is taken, so ${what} of jobs get one that is free and changes with each start; ${setting} sets one`)
    return await open(0)
  }
}

function isTaken(error: unknown): boolean {
  const codeOf = (value: unknown) => (value as NodeJS.ErrnoException | undefined)?.code
  return codeOf(error) === 'EADDRINUSE' || (error instanceof Error && codeOf(error.cause) === 'EADDRINUSE')
}
