import { randomBytes } from 'node:crypto'
import { readdirSync } from 'node:fs'
import { mkdtemp, rm } from 'node:fs/promises'
import { join } from 'node:path'
import type { HostApi, OutputChunk, RunningSandbox, SandboxSpec } from '@mags/protocol'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { canMakeSandboxes, openRealHost, runDirOf } from '../kit/real-host.ts'

const counter = 'i=0; while :; do echo $i; i=$((i+1)); done'

/** Output of a script, which must come without gap or repeat. */
class Collected {
  text = ''
  /** Where a copy's output begins. */
  start: number | undefined
  #waiters: { readonly length: number; readonly resolve: () => void }[] = []

  readonly sink = async ({ source, offset, bytes }: OutputChunk): Promise<undefined> => {
    if (source !== 'stdout') return
    this.start ??= offset
    expect(offset).toBe(this.start + this.text.length)
    this.text += Buffer.from(bytes).toString()
    for (const { length, resolve } of this.#waiters) if (this.text.length >= length) resolve()
    this.#waiters = this.#waiters.filter(({ length }) => length > this.text.length)
  }

  more(bytes = 1000): Promise<void> {
    return new Promise((resolve) => this.#waiters.push({ length: this.text.length + bytes, resolve }))
  }

  get whole() {
    return this.text
      .split('\n')
      .slice(0, -1)
      .every((line, index) => line === `${index}`)
  }
}

async function run(running: RunningSandbox, command: string): Promise<string> {
  let text = ''
  await running.exec({ command: ['/bin/sh', '-c', command], timeoutMs: 60_000 }, (_source, bytes) => {
    text += Buffer.from(bytes).toString()
  })
  return text
}

/** Sleep, hibernation and forks as the server sees them, over real sandboxes of both kinds and restarts of the host. */
describe.skipIf(!canMakeSandboxes())('sandboxes that sleep', { timeout: 120_000 }, () => {
  const held = new AsyncDisposableStack()
  const instance = randomBytes(3).toString('hex')
  let dataDir: string
  let host: HostApi

  const open = () => openRealHost({ instance, dataDir })
  const reopen = async (): Promise<HostApi> => {
    await host.close({ keepPersistent: true })
    host = await open()
    return host
  }
  beforeAll(async () => {
    dataDir = await mkdtemp('/var/tmp/mags-sleep-')
    held.defer(() => rm(dataDir, { recursive: true, force: true }))
    held.defer(() => rm(runDirOf(instance), { recursive: true, force: true }))
    host = await open()
    held.defer(() => host.close({ keepPersistent: false }))
    await host.settle()
  }, 120_000)
  afterAll(() => held.disposeAsync(), 60_000)

  const spec = (isolation: 'container' | 'vm', extra: Partial<SandboxSpec> = {}): SandboxSpec => ({
    image: 'debian-12',
    isolation,
    vcpus: 1,
    memoryMb: 256,
    diskGb: 2,
    persistent: true,
    ...extra,
  })
  const start = async (asked: SandboxSpec, output: Collected) => {
    const lease = await host.acquire(asked)
    return await lease.run({ script: counter, environment: {} }, output.sink)
  }
  const storageId = () => randomBytes(16).toString('hex')

  for (const isolation of ['container', 'vm'] as const) {
    it(`${isolation}: sleep on over a restart, and wake where they were`, async () => {
      const output = new Collected()
      let running = await start(spec(isolation), output)
      await output.more()
      await running.sleep()
      expect(host.poolStatus()).toMatchObject({ busy: 0, sleeping: 1 })
      await expect(run(running, 'true')).rejects.toMatchObject({ code: 'job_not_running' })
      expect(await running.hibernate()).toBe(isolation === 'vm')
      const safe = { stdout: output.text.length, stderr: 0, asleep: true }
      const next = await (await reopen()).adopt(running.sandboxId, safe, output.sink)
      if (next === undefined) throw new Error('it was not adopted')
      running = next
      await host.settle()
      expect(host.poolStatus()).toMatchObject({ busy: 0, sleeping: 1 })
      await expect(run(running, 'true')).rejects.toMatchObject({ code: 'job_not_running' })
      await running.wake()
      expect(host.poolStatus()).toMatchObject({ busy: 1, sleeping: 0 })
      await output.more()
      expect(output.whole).toBe(true)
      expect(await run(running, 'echo awake')).toBe('awake\n')
      await running.sleep()
      await running.destroy()
      await running.gone
      expect(host.poolStatus()).toMatchObject({ busy: 0, sleeping: 0 })
    })

    it(`${isolation}: are copied while they run`, async () => {
      const output = new Collected()
      const running = await start(spec(isolation), output)
      await output.more()
      await run(running, 'echo both > /root/both')
      const { lease, withMemory } = await running.fork(spec(isolation))
      expect(withMemory).toBe(isolation === 'vm')
      await output.more()
      const copied = new Collected()
      const copy = await lease.run({ script: counter, environment: {} }, copied.sink)
      await copied.more()
      if (withMemory) {
        const begin = copied.start ?? 0
        while (output.text.length < begin + 1000) await output.more()
        expect(copied.text.slice(0, 1000)).toBe(output.text.slice(begin, begin + 1000))
      }
      expect(await run(copy, 'cat /root/both; echo copy > /root/both')).toBe('both\n')
      expect(await run(running, 'cat /root/both')).toBe('both\n')
      expect(await run(copy, 'hostname')).not.toBe(await run(running, 'hostname'))
      // A copy of a copy, and over a restart.
      const again = await (await copy.fork(spec(isolation))).lease.run({ script: counter, environment: {} }, new Collected().sink)
      expect(await run(again, 'cat /root/both')).toBe('copy\n')
      const adopted = await (await reopen()).adopt(again.sandboxId, { stdout: 0, stderr: 0 }, async () => undefined)
      if (adopted === undefined) throw new Error('the copy was not adopted')
      await host.settle()
      expect(await run(adopted, 'cat /root/both; dd if=/dev/zero of=/root/more bs=1M count=5 2>/dev/null; ls /root')).toBe('copy\nboth\nmore\n')
      await adopted.destroy()
      await adopted.gone
    })

    it(`${isolation}: are copied into a workspace, from one or from none`, async () => {
      const [one, two, three] = [storageId(), storageId(), storageId()]
      const output = new Collected()
      const running = await start(spec(isolation, { workspace: { storageId: one, fence: 1 } }), output)
      await run(running, 'mkdir -p /root/a && echo saved > /root/a/saved')
      const first = await running.saveWorkspace({ final: false })
      expect(first.changed).toBe(true)
      await run(running, 'echo new > /root/a/new; rm /etc/issue')
      const { lease, withMemory } = await running.fork(spec(isolation, { workspace: { storageId: two, fence: 1 } }))
      expect(withMemory).toBe(isolation === 'vm')
      const copy = await lease.run({ script: counter, environment: {} }, new Collected().sink)
      expect(await run(copy, 'cat /root/a/saved /root/a/new; echo copy > /root/a/copy')).toBe('saved\nnew\n')
      if (isolation === 'vm') {
        await copy.sleep()
        await copy.hibernate()
        await copy.wake()
      }
      expect((await copy.saveWorkspace({ final: false })).changed).toBe(true)
      // Both go on, each in its own.
      await run(running, 'echo original > /root/a/original')
      expect((await running.saveWorkspace({ final: true })).changed).toBe(true)
      await Promise.all([running.destroy(), copy.saveWorkspace({ final: true }).then(() => copy.destroy())])
      await Promise.all([running.gone, copy.gone])
      const look = async (id: string) => {
        const again = await start(spec(isolation, { persistent: false, workspace: { storageId: id, fence: 2 } }), new Collected())
        const seen = await run(again, 'ls /root/a; ls /etc/issue 2>/dev/null')
        await again.destroy()
        await again.gone
        return seen
      }
      expect(await look(one)).toBe('new\noriginal\nsaved\n')
      expect(await look(two)).toBe('copy\nnew\nsaved\n')

      const bare = await start(spec(isolation, { persistent: false }), new Collected())
      await run(bare, 'mkdir -p /root/a && echo bare > /root/a/bare')
      const kept = await bare.fork(spec(isolation, { workspace: { storageId: three, fence: 1 } }))
      const keeper = await kept.lease.run({ script: counter, environment: {} }, new Collected().sink)
      expect((await keeper.saveWorkspace({ final: true })).changed).toBe(true)
      await Promise.all([bare.destroy(), keeper.destroy()])
      await Promise.all([bare.gone, keeper.gone])
      expect(await look(three)).toBe('bare\n/etc/issue\n')
    })

    it(`${isolation}: copies that nobody takes over leave nothing`, async () => {
      const running = await start(spec(isolation), new Collected())
      const { lease } = await running.fork(spec(isolation))
      await lease.release()
      expect(host.poolStatus()).toMatchObject({ busy: 1 })
      await expect(running.fork(spec(isolation, { image: 'other' }))).rejects.toMatchObject({ code: 'not_available' })
      if (isolation === 'vm') await expect(running.fork(spec(isolation, { memoryMb: 512 }))).rejects.toMatchObject({ code: 'not_available' })
      expect(await run(running, 'echo alive')).toBe('alive\n')
      await running.destroy()
      await running.gone
      const left = readdirSync(join(dataDir, 'scratch')).filter((name) => /^[0-9a-f]{12}\.img$/.test(name))
      expect(left).toEqual([])
    })
  }
})
