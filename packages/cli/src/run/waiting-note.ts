import type { Mags } from '@mags/sdk'
import type { Cli } from '../cli.ts'

const patienceMs = 1_000

/** Says on a terminal why a job is still waiting after a second. Dispose it when the job shows a sign of life. */
export function sayWhyItWaits(cli: Cli, mags: Mags, id: string): Disposable {
  if (!cli.output.stderrIsTerminal || cli.output.json) return { [Symbol.dispose]: () => undefined }
  const done = new AbortController()
  const timer = setTimeout(() => {
    // A note that fails is no reason to fail the job.
    explain(cli, mags, id, done.signal).catch(() => undefined)
  }, patienceMs)
  return {
    [Symbol.dispose]: () => {
      clearTimeout(timer)
      done.abort()
    },
  }
}

async function explain(cli: Cli, mags: Mags, id: string, signal: AbortSignal): Promise<void> {
  const { status } = await mags.status(id, { signal })
  if (status !== 'pending') return
  const pool = await mags.poolStatus({ signal })
  if (signal.aborted) return
  await cli.output.aside(`waiting for a sandbox: ${describePool(pool)} (Ctrl-C stops the job)`)
}

export function describePool(pool: { idle_vms: number; busy_vms: number; max_pool_size: number; last_failure?: string | null }): string {
  if (pool.last_failure) return `the last one could not be made: ${pool.last_failure}`
  if (pool.max_pool_size > 0 && pool.busy_vms >= pool.max_pool_size) return `all ${pool.max_pool_size} that this server may have are busy; the job is queued`
  if (pool.idle_vms === 0) return `none is ready, ${pool.busy_vms} are busy; one is being made`
  return 'the job is queued'
}
