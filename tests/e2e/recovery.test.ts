import { execFileSync } from 'node:child_process'
import { Mags } from '@mags/sdk'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { type DaemonPlace, makePlace, startDaemon, type TestDaemon } from '../kit/daemon.ts'
import { isFinal, isRunning, systemWords, untilStatus } from '../kit/jobs.ts'
import { leftOf } from '../kit/leaks.ts'
import { canTest, notRoot } from '../kit/require.ts'

const environment = { MAGS_ISOLATION: 'container' }
const counting = 'n=0; while :; do n=$((n+1)); echo $n; sleep 0.05; done'
const clientOf = (daemon: { url: string; token: string }) => new Mags({ apiUrl: daemon.url, apiToken: daemon.token })

describe.runIf(canTest('MAGS_REQUIRE_CONTAINER', notRoot))('after the server was killed', () => {
  let place: DaemonPlace & AsyncDisposable
  let daemon: TestDaemon

  beforeEach(async () => {
    place = await makePlace()
  })

  /** Starts the next daemon over the same folders. */
  const start = async (environment: Record<string, string>) => {
    daemon = await startDaemon(environment, place)
    return daemon
  }

  afterEach(async () => {
    await daemon.stop()
    const left = leftOf(daemon)
    await place[Symbol.asyncDispose]()
    expect(left).toEqual([])
  })

  it('a persistent job goes on, with every line of its output exactly once', async () => {
    const first = await start(environment)
    const { requestId } = await clientOf(first).run(counting, { persistent: true, name: 'counter' })
    const { vm_id: machine } = await untilStatus(clientOf(first), requestId, isRunning)
    await countTo(clientOf(first), requestId, 5)
    await first.crash()

    const second = await start(environment)
    const mags = clientOf(second)
    expect(await mags.status(requestId)).toMatchObject({ status: 'running', vm_id: machine })
    const { logs } = await mags.logs(requestId, { source: 'stdout' })
    await countTo(mags, requestId, logs.length + 10)
    const after = (await mags.logs(requestId, { source: 'stdout' })).logs.map(({ message }) => Number(message))
    expect(after).toEqual(after.map((_, index) => index + 1))
    expect((await mags.exec(requestId, 'hostname')).stdout).toBe(`mags-${machine?.slice(0, 8)}\n`)
    await mags.stop(requestId)
  }, 120_000)

  it('another running job ends as an error that says why, and pending ones run', async () => {
    const narrow = { ...environment, MAGS_POOL_MAX: '1', MAGS_POOL_MIN: '1' }
    const first = await start(narrow)
    const running = await clientOf(first).run('echo begun; sleep 1000')
    await untilLine(clientOf(first), running.requestId, (line) => line === 'begun')
    const pending = await Promise.all([1, 2, 3].map((n) => clientOf(first).run(`echo run ${n}`)))
    await first.crash()

    const second = await start(narrow)
    const mags = clientOf(second)
    const ended = await untilStatus(mags, running.requestId, isFinal)
    expect(ended.status).toBe('error')
    expect(`${ended.error} ${await systemWords(mags, running.requestId)}`).toMatch(/server/)
    for (const [index, { requestId }] of pending.entries()) {
      expect(await untilStatus(mags, requestId, isFinal)).toMatchObject({ status: 'completed', exit_code: 0 })
      expect((await mags.logs(requestId, { source: 'stdout' })).logs.map(({ message }) => message)).toEqual([`run ${index + 1}`])
    }
  }, 120_000)

  it('a persistent job lives through a stop and a start, too', async () => {
    const first = await start(environment)
    const { requestId } = await clientOf(first).run(counting, { persistent: true })
    await countTo(clientOf(first), requestId, 3)
    expect(await first.stop()).toBe(0)

    const second = await start(environment)
    const mags = clientOf(second)
    await countTo(mags, requestId, 20)
    await mags.stop(requestId)
    expect((await mags.status(requestId)).status).toBe('stopped')
  }, 120_000)

  it('a server without its mounter ends and says why, and the next one goes on', async () => {
    const first = await start(environment)
    const staying = await clientOf(first).run('sleep 1000', { persistent: true })
    await untilStatus(clientOf(first), staying.requestId, isRunning)
    process.kill(mounterOf(first.pid), 'SIGKILL')
    const words = 'the mounter ended (SIGKILL): no sandbox can be made without it; start the server again'
    await expect.poll(() => first.log(), { timeout: 30_000 }).toContain(words)
    expect(await first.stop()).toBe(1)

    const mags = clientOf(await start(environment))
    expect((await mags.exec(staying.requestId, 'echo here')).stdout).toBe('here\n')
    expect(await mags.runAndWait('true')).toMatchObject({ status: 'completed' })
    await mags.stop(staying.requestId)
  }, 120_000)

  it('everything an idle server had is freed by a start and a stop', async () => {
    const first = await start(environment)
    await clientOf(first).runAndWait('true')
    await first.crash()
    await start(environment)
    expect(await daemon.stop()).toBe(0)
  }, 120_000)
})

const mounterOf = (pid: number) => Number(execFileSync('pgrep', ['-P', `${pid}`, '-f', 'mounter serve'], { encoding: 'utf8' }))

async function untilLine(mags: Mags, id: string, wanted: (line: string) => boolean) {
  for await (const row of mags.followLogs(id)) if (row.source === 'stdout' && wanted(row.message)) return
  throw new Error(`job ${id} ended before the line came`)
}

const countTo = (mags: Mags, id: string, lines: number) => untilLine(mags, id, (line) => Number(line) >= lines)
