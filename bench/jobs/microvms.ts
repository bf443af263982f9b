import { startDaemon } from '../../tests/kit/daemon.ts'
import { BenchClient } from '../kit/client.ts'
import { type Row, summarize } from '../kit/statistics.ts'
import { coldQemu } from '../start/cold-qemu.ts'
import { until } from './api.ts'

interface Microvm {
  readonly id: string
  readonly status: string
  readonly error: string | null
  readonly request_id: string
}

const longestMs = 300_000
const lookEveryMs = 25

/** Nobody answers there right after init began. */
const booted = 'until [ -S /run/systemd/private ]; do sleep 0.1; done; systemctl is-system-running --wait'

const steps = [
  'create → status running',
  'create → all services up',
  'stop → stopped, disk saved',
  'start → status running',
  'start → all services up',
  'restart → status running',
  'restart → all services up',
  'delete → gone',
] as const
type Times = Record<(typeof steps)[number], number[]>

/** The life of a microVM with the services of its image. */
export async function measureMicrovms(rounds: number): Promise<{ rows: Row[]; words: string }> {
  const firstPort = 33_000 + (process.pid % 500) * 10
  await using daemon = await startDaemon({ MAGS_ISOLATION: 'vm', MAGS_POOL_MIN: '0', MAGS_SSH_FIRST_PORT: String(firstPort) })
  const client = new BenchClient(daemon)
  const times = Object.fromEntries(steps.map((step) => [step, []])) as unknown as Times
  const said: string[] = []
  try {
    for (let round = 0; round < rounds; round++) {
      try {
        said.push(...(await live(client, times, `bench-${round}`)))
      } catch (error) {
        process.stderr.write(`microVM ${round}: ${error}\n`)
        await client.call('DELETE', `/api/v1/microvms/bench-${round}`).catch(() => undefined)
      }
    }
  } finally {
    client.close()
  }
  const words = [...new Set(said)].map((state) => `${state} ${said.filter((one) => one === state).length}×`)
  const rows = steps.map((step) => summarize(step, times[step], rounds - times[step].length))
  return { rows: [...rows, await coldQemu(rounds)], words: `What systemctl is-system-running said: ${words.join(', ')}.` }
}

async function live(client: BenchClient, times: Times, name: string): Promise<string[]> {
  const path = `/api/v1/microvms/${name}`
  let before: string | undefined
  const becomes = async (status: string) =>
    await until(
      async () => {
        const vm = await client.get<Microvm>(path)
        if (vm.status === 'error') throw new Error(`the microVM is in error: ${vm.error}`)
        return vm.status === status && (status !== 'running' || vm.request_id !== before) ? vm : undefined
      },
      lookEveryMs,
      longestMs,
    )
  const comesUp = async (word: 'create' | 'start' | 'restart', begin: number) => {
    const { request_id: requestId } = await becomes('running')
    before = requestId
    times[`${word} → status running`].push(performance.now() - begin)
    const { stdout } = await client.call<{ stdout: string }>('POST', `/api/v1/mags-jobs/${requestId}/exec`, {
      command: booted,
      timeout_seconds: longestMs / 1000,
    })
    times[`${word} → all services up`].push(performance.now() - begin)
    return stdout.trim()
  }
  // The answer may come late, and tells nothing that the status does not.
  const act = (action: string) => client.call<{ success: boolean }>('POST', `${path}/${action}`)

  const states: string[] = []
  let begin = performance.now()
  await client.call('POST', '/api/v1/microvms', { name, cpu: 2, memory: 512, disk: 4, image: 'debian-12' })
  states.push(await comesUp('create', begin))
  begin = performance.now()
  await act('stop')
  await becomes('stopped')
  times['stop → stopped, disk saved'].push(performance.now() - begin)
  begin = performance.now()
  const [started] = await Promise.all([comesUp('start', begin), act('start')])
  states.push(started)
  begin = performance.now()
  const [restarted] = await Promise.all([comesUp('restart', begin), act('restart')])
  states.push(restarted)
  begin = performance.now()
  await client.call('DELETE', path)
  times['delete → gone'].push(performance.now() - begin)
  return states
}
