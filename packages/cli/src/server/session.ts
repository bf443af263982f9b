import { isLoopback, Mags, MagsApiError, MagsConnectionError, type MagsOptions, type ResolvedConfig, resolveConfig, wait } from '@mags/sdk'
import type { Cli } from '../cli.ts'
import { loopbackTransport } from '../http/loopback-transport.ts'

/** A server that has answered. */
export interface Session {
  readonly mags: Mags
}

const tokenPatienceMs = 5_000
const shortestSaidMs = 1_000

/**
 * Makes the first call of a command, and starts the local server when nothing listens where it would be. A server that was named in the
 * environment is never started: it is somebody else's. Returns what the call gave, with the client for further calls.
 */
export async function openSession<Result>(cli: Cli, firstCall: (mags: Mags) => Promise<Result>): Promise<Session & { readonly first: Result }> {
  cli.interrupts.listen()
  const config = resolveConfig({ env: cli.env })
  if (config.warning !== undefined) await cli.output.note(config.warning)
  const startable = isStartable(config)
  const onRetry = sayRetry(cli)
  try {
    // A server that is not there is started, not waited for.
    const first = await firstCall(clientFor(config, { onRetry, ...(startable ? { retryRefused: false } : {}) }))
    return { mags: clientFor(config, { onRetry }), first }
  } catch (error) {
    if (!(startable && error instanceof MagsConnectionError && error.code === 'ECONNREFUSED')) throw error
    const { startLocalServer } = await import('./start-local-server.ts')
    await startLocalServer(cli, config)
    return await firstCallOfNewServer(cli, firstCall)
  }
}

/** A new server answers a moment before it has written its token down. */
async function firstCallOfNewServer<Result>(cli: Cli, firstCall: (mags: Mags) => Promise<Result>) {
  for (const giveUpMs = performance.now() + tokenPatienceMs; ; ) {
    const mags = clientFor(resolveConfig({ env: cli.env }), { onRetry: sayRetry(cli) })
    try {
      return { mags, first: await firstCall(mags) }
    } catch (error) {
      if (!(error instanceof MagsApiError && error.status === 401 && performance.now() < giveUpMs)) throw error
      await wait(50, cli.interrupts.requested)
    }
  }
}

/** Says why a command stands still for a second or more. */
function sayRetry(cli: Cli) {
  return (error: unknown, delayMs: number) => {
    if (delayMs < shortestSaidMs || !(error instanceof MagsApiError)) return
    void cli.output.note(`${error.message.replace(/\.$/, '')}; trying again in ${Math.round(delayMs / 1000)} s`)
  }
}

export function clientFor(
  config: Pick<ResolvedConfig, 'apiUrl'> & { readonly apiToken?: string | undefined },
  options: Pick<MagsOptions, 'maxRetries' | 'onRetry' | 'retryRefused' | 'timeout'> = {},
): Mags {
  return new Mags({ apiUrl: config.apiUrl, apiToken: config.apiToken ?? null, transport: loopbackTransport, ...options })
}

/** Whether the server is this machine's own, which commands start when it does not answer. */
export function isStartable(config: ResolvedConfig): boolean {
  const url = new URL(config.apiUrl)
  if (config.apiUrlSource === 'default' || config.apiUrlSource === 'port') return true
  return config.apiUrlSource === 'file' && url.protocol === 'http:' && isLoopback(url.hostname)
}
