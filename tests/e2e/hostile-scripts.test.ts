import { statfsSync } from 'node:fs'
import { logRowBytes, Mags } from '@mags/sdk'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { startDaemon, type TestDaemon } from '../kit/daemon.ts'
import { isFinal, systemWords, untilStatus } from '../kit/jobs.ts'
import { canTest, notRoot } from '../kit/require.ts'

/** Scripts that break things on purpose: each ends, or is ended, within its limits, says why, and nobody else notices. */
describe.runIf(canTest('MAGS_REQUIRE_CONTAINER', notRoot))('hostile scripts', () => {
  let daemon: TestDaemon
  let mags: Mags

  beforeAll(async () => {
    daemon = await startDaemon({ MAGS_ISOLATION: 'container' })
    mags = new Mags({ apiUrl: daemon.url, apiToken: daemon.token })
  }, 180_000)

  afterAll(async () => {
    await daemon?.[Symbol.asyncDispose]()
  }, 60_000)

  const runToEnd = async (script: string, options: Parameters<Mags['run']>[1] = {}) => {
    const { requestId } = await mags.run(script, { isolation: 'container', ...options })
    const status = await untilStatus(mags, requestId, isFinal)
    return { requestId, status, words: await systemWords(mags, requestId) }
  }

  it('that eat memory are ended, with the reason', async () => {
    const { status, words } = await runToEnd('head -c 900M /dev/zero | tail >/dev/null', { memoryMb: 256, timeout: 60 })
    expect(status).toMatchObject({ status: 'error', exit_code: 137 })
    expect(words).toMatch(/memory ran out.*256 MB/)
  }, 90_000)

  it('that fork without end are ended at their deadline', async () => {
    // It stops itself: to wait with a program it would need the fork that it may not get.
    const { status, words } = await runToEnd('bomb() { bomb | bomb & }; bomb; kill -STOP $$', { timeout: 3 })
    expect(status).toMatchObject({ status: 'error', exit_code: 124 })
    expect(words).toContain('timed out after 3 s')
  }, 60_000)

  it('that ignore SIGTERM are ended all the same', async () => {
    const { status } = await runToEnd('trap "" TERM; echo deaf; while :; do sleep 1; done', { timeout: 1 })
    expect(status).toMatchObject({ status: 'error', exit_code: 124 })
  }, 60_000)

  it('that fill the disk fill only their own', async () => {
    const before = statfsSync(daemon.dataDir).bavail
    const { status, requestId } = await runToEnd('head -c 6G /dev/zero > /root/big; code=$?; rm /root/big; exit $code', { diskGb: 1, timeout: 120 })
    expect(status.status).toBe('error')
    const { logs } = await mags.logs(requestId, { source: 'stderr' })
    expect(logs.map(({ message }) => message).join()).toContain('No space left on device')
    expect((before - statfsSync(daemon.dataDir).bavail) * statfsSync(daemon.dataDir).bsize).toBeLessThan(2 * 2 ** 30)
  }, 150_000)

  it('that flood their output are cut at the limit, with a row that says so', async () => {
    const { status, words } = await runToEnd('yes "$(head -c 1000 /dev/zero | tr "\\0" x)" | head -c 300M', { timeout: 120 })
    expect(status).toMatchObject({ status: 'completed', exit_code: 0 })
    expect(words).toContain('output limit of 64 MiB reached')
  }, 150_000)

  it('that close their outputs still end with their code', async () => {
    const { status } = await runToEnd('exec >&- 2>&-; sleep 0.2; exit 5')
    expect(status).toMatchObject({ status: 'error', exit_code: 5 })
  })

  it('that leave daemons behind end when the script ends', async () => {
    const { status } = await runToEnd('(setsid sleep 1000 &); (sleep 1000 &); echo done')
    expect(status).toMatchObject({ status: 'completed', exit_code: 0 })
  })

  it('that print bytes which are no UTF-8 get them back exactly', async () => {
    const { requestId } = await runToEnd("printf 'a\\377\\376b\\n\\303'")
    const { logs } = await mags.logs(requestId, { source: 'stdout' })
    expect(Buffer.concat(logs.map((row) => Buffer.from(logRowBytes(row)))).toString('latin1')).toBe('a\xff\xfeb\n\xc3')
  })

  it('that print a line of 10 MB get it in pieces, none lost', async () => {
    const { requestId, status } = await runToEnd('head -c 10000000 /dev/zero | tr "\\0" x; echo')
    expect(status.exit_code).toBe(0)
    let bytes = 0
    let after: string | undefined
    for (;;) {
      const page = await mags.logs(requestId, { source: 'stdout', ...(after === undefined ? {} : { after }) })
      if (page.logs.length === 0) break
      for (const row of page.logs) {
        expect(row.message.length).toBeLessThanOrEqual(65_536)
        bytes += logRowBytes(row).length
      }
      after = page.next
    }
    expect(bytes).toBe(10_000_001)
  }, 60_000)

  it('that stop themselves, kill everything or the shell end the job, not the server', async () => {
    expect((await runToEnd('kill -9 $$')).status).toMatchObject({ status: 'error', exit_code: 137 })
    // The kernel spares the caller (kill(2)), and the agent is not to be killed from inside.
    expect((await runToEnd('kill -9 -1; echo spared', { timeout: 20 })).status.status).toBe('completed')
    expect((await mags.runAndWait('echo still here')).stdout).toBe('still here\n')
  }, 60_000)
})
