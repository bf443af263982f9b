import { describe, expect, it, vi } from 'vitest'
import { openEngine } from '../testing/engine.ts'

const until = <T>(probe: () => T) => expect.poll(probe, { timeout: 10_000, interval: 5 })
/** As node:sqlite has it. */
const full = () => Object.assign(new Error('database or disk is full'), { code: 'ERR_SQLITE_ERROR', errcode: 13 })

describe('a job on a server whose disk is full', () => {
  it('that has ended gives its sandbox back, says so, and is over once there is room', async () => {
    await using engine = await openEngine()
    let isFull = true
    const { store } = engine
    const finish = store.finish.bind(store)
    vi.spyOn(store, 'finish').mockImplementation(async (...args) => {
      if (isFull) throw full()
      return await finish(...args)
    })
    engine.dispatcher.start()
    const job = await engine.start({ script: 'exit 3' })
    const run = engine.dispatcher.find(job.requestId)
    await until(() => run?.trouble.words).toContain('disk with the server')
    expect(run?.trouble.words).toContain('has ended, which is stored once there is room')
    await until(() => engine.host.sandboxes.size).toBe(0)
    await expect(run?.stop()).rejects.toMatchObject({ code: 'storage_full', message: expect.stringContaining('free some space') })
    expect(await store.get(job.requestId)).toMatchObject({ status: 'running' })
    isFull = false
    expect(await engine.ended(job)).toMatchObject({ status: 'error', exitCode: 3, error: 'the script ended with exit code 3' })
  })

  it('that waits begins once that can be stored, in one sandbox', async () => {
    await using engine = await openEngine()
    const markRunning = vi.spyOn(engine.store, 'markRunning').mockRejectedValueOnce(full()).mockRejectedValueOnce(full())
    engine.dispatcher.start()
    const job = await engine.start({})
    const run = engine.dispatcher.find(job.requestId)
    await until(() => run?.trouble.words).toContain('goes on by itself')
    expect(await engine.ended(job)).toMatchObject({ status: 'completed', exitCode: 0, error: null })
    expect(markRunning).toHaveBeenCalledTimes(3)
    expect(engine.host.acquired).toHaveLength(1)
  })

  it('that waits can be stopped meanwhile', async () => {
    await using engine = await openEngine()
    vi.spyOn(engine.store, 'markRunning').mockRejectedValue(full())
    engine.dispatcher.start()
    const job = await engine.start({})
    const run = engine.dispatcher.find(job.requestId)
    await until(() => run?.trouble.words).toContain('goes on by itself')
    await run?.stop()
    expect(await engine.ended(job)).toMatchObject({ status: 'stopped' })
    await until(() => engine.host.sandboxes.size).toBe(0)
  })

  it('does not keep the server from ending: the next one says what became of it', async () => {
    const first = await openEngine()
    const finish = vi.spyOn(first.store, 'finish').mockRejectedValue(full())
    first.dispatcher.start()
    const job = await first.start({ script: 'wait' })
    await until(() => first.host.sandboxes.size).toBe(1)
    await first.dispatcher.drain(0, 'the server ends')
    expect(finish).toHaveBeenCalledTimes(1)
    expect(await first.store.get(job.requestId)).toMatchObject({ status: 'running' })
    await first[Symbol.asyncDispose]()
  })

  it('whose machine stands still says so in its status and its log, and again when it goes on', async () => {
    await using engine = await openEngine()
    engine.dispatcher.start()
    const job = await engine.start({ script: 'wait', persistent: true })
    await until(() => engine.host.sandboxes.size).toBe(1)
    const run = engine.dispatcher.find(job.requestId)
    await until(() => run?.uses.hasBegun).toBe(true)
    for (const sandbox of engine.host.sandboxes.values()) sandbox.stall("the server's disk is full; free some space on it")
    expect(run?.trouble.words).toContain("the server's disk is full; free some space on it; the job stands still")
    for (const sandbox of engine.host.sandboxes.values()) sandbox.stall(undefined)
    expect(run?.trouble.words).toBeUndefined()
    await run?.stop()
    expect(await engine.rows(job)).toEqual([
      "system the machine stands still: the server's disk is full; free some space on it; it goes on by itself once there is room",
      'system there is room again; the machine goes on',
    ])
  })
})
