import { MagsConnectionError, resolveConfig } from '@mags/sdk'
import type { Cli } from '../cli.ts'
import { isStartable } from './session.ts'

/** A server that is being restarted by somebody else is back by then. */
const startAfterMs = 3_000
const sayAfterMs = 1_000

/**
 * For following a job: what to do each time its connection has failed. Says so when that lasts, and starts the server of this machine
 * again when nothing listens there any more, once each time it is lost: it knows what became of the job.
 */
export function reconnect(cli: Cli, afterMs = { say: sayAfterMs, start: startAfterMs }): (error: unknown, failures: number) => Promise<void> {
  let lostMs = 0
  let said = false
  let started = false
  return async (error, failures) => {
    if (failures === 0) {
      lostMs = performance.now()
      said = false
      started = false
    }
    const elapsedMs = performance.now() - lostMs
    if (!said && elapsedMs >= afterMs.say) {
      said = true
      await cli.output.note('the connection to the server is lost; trying again')
    }
    if (started || elapsedMs < afterMs.start || !(error instanceof MagsConnectionError && error.code === 'ECONNREFUSED')) return
    const config = resolveConfig({ env: cli.env })
    if (!isStartable(config)) return
    started = true
    const { startLocalServer } = await import('./start-local-server.ts')
    await startLocalServer(cli, config)
  }
}
