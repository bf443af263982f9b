import { appendFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { FakeHost } from '../testing/fake-host.ts'
import { startTestServer } from '../testing/test-server.ts'

const until = <T>(probe: () => T) => expect.poll(probe, { timeout: 10_000, interval: 5 })

describe('recovery', () => {
  it('runs what was pending, adopts what is persistent and fails the rest', async () => {
    const host = new FakeHost()
    await using undo = new AsyncDisposableStack()
    undo.defer(() => host.close())
    const first = undo.use(await startTestServer({ host, deps: { limits: { drainGraceMs: 0 } } }))
    const keep = await first.submit({ script: 'echo one\nwait', persistent: true })
    const rest = await first.submit({ script: 'echo done\nexit 2', persistent: true })
    const gone = await first.submit({ script: 'echo', persistent: true })
    const unseen = await first.submit({ script: 'wait', persistent: true })
    const lost = await first.submit({ script: 'wait' })
    await until(async () => (await first.status(rest)).exit_code).toBe(2)
    for (const id of [keep, gone, unseen, lost]) await until(async () => (await first.status(id)).status).toBe('running')
    await until(async () => (await first.rows(keep)).logs.length).toBe(1)
    const vmOf = async (id: string) => host.sandboxes.get(String((await first.status(id)).vm_id))
    const [kept, goner, unknown] = [await vmOf(keep), await vmOf(gone), await vmOf(unseen)]
    await first.server.close()

    // What a crash may leave behind: half a record at the end of the log.
    appendFileSync(join(first.deps.logsDir, keep.slice(0, 2), `${keep}.log`), Buffer.from([0xa7, 0, 0, 1, 99, 0, 0, 0, 1, 2, 3]))
    void kept?.write('stdout', 'two\n')
    await goner?.destroy()
    unknown?.end({ kind: 'unknown', exitCode: 0, reason: 'whether it ran is not known' })
    const second = undo.use(await startTestServer({ host, held: true, deps: first.deps }))
    const pending = await second.submit({ script: 'echo late' })
    await second.server.start()
    expect(host.settled).toBe(2)

    expect(await second.ended(pending)).toMatchObject({ status: 'completed' })
    expect(await second.status(lost)).toMatchObject({ status: 'error', error: 'the server stopped while this job ran' })
    expect(await second.status(gone)).toMatchObject({ status: 'error', error: 'the sandbox was gone after a restart of the server' })
    expect((await second.rows(gone, '?source=system')).logs).toMatchObject([{ level: 'error', message: 'the sandbox was gone after a restart of the server' }])
    expect(await second.ended(unseen)).toMatchObject({ status: 'error', exit_code: null, error: 'whether it ran is not known' })
    expect((await second.rows(unseen, '?source=system')).logs).toMatchObject([{ level: 'error', message: 'whether it ran is not known' }])
    expect(await second.status(rest)).toMatchObject({ status: 'running', exit_code: 2 })
    await until(async () => (await second.rows(keep)).logs.map(({ message }) => message)).toEqual(['one', 'two'])
    await kept?.write('stdout', 'three\n')
    kept?.end({ kind: 'exited', exitCode: 7 })
    await until(async () => (await second.status(keep)).exit_code).toBe(7)
    expect((await second.rows(keep)).logs.map(({ message }) => message)).toEqual(['one', 'two', 'three'])
    await second.call('POST', `/mags-jobs/${rest}/stop`)
    expect(await second.status(rest)).toMatchObject({ status: 'stopped', exit_code: 2 })
  })

  it('leaves what waits for the next start, and refuses new jobs while it drains', async () => {
    const host = new FakeHost({
      beforeAcquire: (_spec, abort) => new Promise((_resolve, reject) => abort?.addEventListener('abort', () => reject(abort.reason))),
    })
    await using first = await startTestServer({ host })
    const id = await first.submit({ script: 'echo' })
    await first.server.drain()
    expect(await first.call('POST', '/mags-jobs', { script: 'echo' })).toMatchObject({ status: 503, body: { code: 'no_capacity' } })
    expect(await first.status(id)).toMatchObject({ status: 'pending' })
    await first.server.close()
    await using second = await startTestServer({ deps: { ...first.deps, host: new FakeHost() }, host: new FakeHost() })
    expect(await second.ended(id)).toMatchObject({ status: 'completed' })
  })

  it('waits for running jobs while it drains', async () => {
    await using mags = await startTestServer({ deps: { limits: { drainGraceMs: 60_000 } } })
    const id = await mags.submit({ script: 'wait' })
    await until(async () => (await mags.status(id)).status).toBe('running')
    const drained = mags.server.drain()
    for (const sandbox of mags.host.sandboxes.values()) sandbox.end({ kind: 'exited', exitCode: 0 })
    await drained
    expect(await mags.status(id)).toMatchObject({ status: 'completed' })
  })
})
