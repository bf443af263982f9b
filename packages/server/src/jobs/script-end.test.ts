import type { ScriptExit, ScriptSpec } from '@mags/protocol'
import { describe, expect, it } from 'vitest'
import { openEngine } from '../testing/engine.ts'

const until = <T>(probe: () => T) => expect.poll(probe, { timeout: 10_000, interval: 5 })

describe('the end of a script', () => {
  it('is told of an init, whose job lives on', async () => {
    const started: ScriptSpec[] = []
    await using engine = await openEngine({ beforeRun: (script) => void started.push(script), behaviour: () => new Promise<ScriptExit>(() => undefined) })
    engine.dispatcher.start()
    const job = await engine.start({ kind: 'microvm', persistent: true, init: true, script: ':' })
    await until(() => engine.host.sandboxes.size).toBe(1)
    await until(() => started.length).toBe(1)
    expect(started[0]).toMatchObject({ init: true })
    const run = engine.dispatcher.find(job.requestId)
    for (const sandbox of engine.host.sandboxes.values()) sandbox.end({ kind: 'exited', exitCode: 0, halted: 'rebooted' })
    expect(await run?.scriptEnd).toMatchObject({ halted: 'rebooted' })
    expect(await engine.store.get(job.requestId)).toMatchObject({ status: 'running', exitCode: 0 })
  })

  it('is not, when the job is left to the next process', async () => {
    await using engine = await openEngine()
    engine.dispatcher.start()
    const { requestId } = await engine.start({ persistent: true, script: 'wait' })
    await until(async () => (await engine.store.get(requestId))?.status).toBe('running')
    const run = engine.dispatcher.find(requestId)
    await engine.dispatcher.close()
    expect(await run?.scriptEnd).toBeUndefined()
  })
})
