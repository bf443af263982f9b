import { MagsError } from '@mags/protocol'
import { describe, expect, it } from 'vitest'
import { FakeDriver } from '../drivers/fake/fake-driver.ts'
import { type FakePrograms, FakeWorld } from '../drivers/fake/fake-machine.ts'
import { neverEnd } from '../drivers/fake/fake-programs.ts'
import type { SandboxEgress } from '../egress/sandbox-egress.ts'
import type { OpenWorkspace } from '../workspaces/local/open-workspace.ts'
import { type Forked, HostSandbox } from './host-sandbox.ts'

const shape = { image: 'debian-12', vcpus: 1, memoryMb: 512, diskGb: 2 }

/** Counts, one number a write, until a signal comes. */
const counts: FakePrograms = {
  counts: async (process) => {
    let signal: number | undefined
    void process.nextSignal().then((received) => {
      signal = received
    })
    for (let i = 0; signal === undefined; i++) await process.write('stdout', `${i}\n`)
    return 3
  },
}

async function start(isolation: 'container' | 'emulated-vm', world = new FakeWorld()) {
  const driver = new FakeDriver({ isolation, world, programs: { ...counts, waits: neverEnd } })
  const sandbox = await driver.create(shape)
  await sandbox.attach(shape)
  const rests: boolean[] = []
  const waiters: { readonly length: number; readonly resolve: () => void }[] = []
  let output = ''
  const sink = async ({ bytes, offset }: { offset: number; bytes: Uint8Array }) => {
    expect(offset).toBe(output.length)
    output += Buffer.from(bytes).toString()
    for (const { length, resolve } of waiters) if (output.length >= length) resolve()
    return undefined
  }
  const fork = async () => {
    throw new MagsError('not_available', 'no forks here')
  }
  const around = {
    environment: undefined,
    workspace: undefined,
    egress: {} as SandboxEgress,
    end: () => sandbox.destroy(),
    onAsleep: (asleep: boolean) => void rests.push(asleep),
    fork,
  }
  const running = await HostSandbox.start(sandbox, { script: 'counts', environment: {} }, sink, { attachMs: () => 0, ...around })
  const more = (bytes: number) => new Promise<void>((resolve) => waiters.push({ length: output.length + bytes, resolve }))
  return { driver, world, sandbox, running, sink, around, rests, more, output: () => output }
}

const whole = (output: string) => {
  const lines = output.split('\n').slice(0, -1)
  return lines.every((line, index) => line === `${index}`) && lines.length > 0
}

describe('a sandbox that sleeps', () => {
  it('stands still, refuses what would have to run in it, and goes on where it was', async () => {
    const { running, more, output, rests, sandbox } = await start('container')
    await more(20)
    await running.sleep()
    await running.sleep()
    const before = output()
    const refused = { code: 'job_not_running', message: expect.stringContaining('sleeps') as string }
    await expect(running.exec({ command: ['counts'], timeoutMs: 1 }, () => undefined)).rejects.toMatchObject(refused)
    await expect(running.files.stat('/')).rejects.toMatchObject(refused)
    await expect(running.connect(80)).rejects.toMatchObject(refused)
    await expect(running.signal(15)).rejects.toMatchObject(refused)
    expect(() => running.start({ kind: 'command', command: ['counts'] }, () => undefined)).toThrow(MagsError)
    expect(await running.hibernate()).toBe(false)
    expect(output()).toBe(before)
    await running.wake()
    await running.wake()
    await more(20)
    expect(whole(output())).toBe(true)
    expect(rests).toEqual([true, false])
    await sandbox.destroy()
  })

  it('ends where the last wish was, whatever was wished at once before', async () => {
    const { running, more, rests, sandbox } = await start('container')
    await more(1)
    await Promise.all([running.sleep(), running.wake(), running.sleep(), running.wake()])
    await more(20)
    expect(rests).toEqual([])
    await Promise.all([running.wake(), running.sleep(), running.wake(), running.sleep()])
    expect(rests).toEqual([true])
    await Promise.all([running.sleep(), running.wake(), running.wake()])
    expect(rests).toEqual([true, false])
    await more(20)
    await sandbox.destroy()
  })

  it('is awake again when it could not be put to sleep, and sleeps on when it could not be woken', async () => {
    const { running, more, sandbox } = await start('container')
    const { freeze, thaw } = sandbox
    sandbox.freeze = async () => {
      throw new Error('one of them waits in the kernel')
    }
    await expect(running.sleep()).rejects.toMatchObject({ code: 'sandbox_failed', message: expect.stringContaining('waits in the kernel') as string })
    await more(20)
    sandbox.freeze = freeze
    await running.sleep()
    sandbox.thaw = async () => {
      throw new Error('out of memory')
    }
    await expect(running.wake()).rejects.toMatchObject({ code: 'sandbox_failed', message: expect.stringContaining('out of memory') as string })
    await expect(running.connect(80)).rejects.toMatchObject({ code: 'job_not_running' })
    sandbox.thaw = thaw
    await running.wake()
    await more(20)
    await sandbox.destroy()
  })

  it('is destroyed at once, and its script has an end', async () => {
    for (const isolation of ['container', 'emulated-vm'] as const) {
      const { running, more } = await start(isolation)
      await more(1)
      await running.sleep()
      await running.hibernate()
      await running.destroy()
      await running.gone
      expect(await running.exited).toMatchObject({ kind: 'sandbox-lost' })
      await expect(running.wake()).rejects.toMatchObject({ code: 'sandbox_failed' })
    }
  })
})

describe('a sandbox whose memory goes to disk', () => {
  it('goes on over a new connection, without loss or repeat, again and again', async () => {
    const { running, more, output, world, sandbox } = await start('emulated-vm')
    for (let round = 0; round < 3; round++) {
      await more(40)
      await running.sleep()
      expect(await running.hibernate()).toBe(true)
      expect(await running.hibernate()).toBe(true)
      expect(world.machines.get(sandbox.id)?.hibernated).toBe(true)
      await running.wake()
    }
    await more(40)
    await running.signal(15)
    expect(await running.exited).toMatchObject({ kind: 'exited', exitCode: 3 })
    expect(whole(output())).toBe(true)
    await sandbox.destroy()
  })

  it('stays frozen with everything it has when there is no room', async () => {
    const { running, more, output, world, sandbox } = await start('emulated-vm')
    await more(40)
    await expect(running.hibernate()).rejects.toMatchObject({ code: 'job_not_running' })
    await running.sleep()
    world.hibernates = false
    await expect(running.hibernate()).rejects.toThrow('the disk is full')
    await running.wake()
    await more(40)
    expect(whole(output())).toBe(true)
    await sandbox.destroy()
  })

  it('tells a program that talks with us that its connection is gone', async () => {
    const { running, more, sandbox } = await start('emulated-vm')
    await more(1)
    const program = running.start({ kind: 'command', command: ['waits'] }, () => undefined)
    await running.sleep()
    await running.hibernate()
    expect(await program.exit).toMatchObject({ kind: 'sandbox-lost', reason: expect.stringContaining('hibernated') as string })
    await running.wake()
    await more(20)
    await sandbox.destroy()
  })

  it('is taken back by the next daemon as it is, and wakes there', async () => {
    const first = await start('emulated-vm')
    await first.more(40)
    await first.running.sleep()
    await first.running.hibernate()
    const safe = { stdout: first.output().length, stderr: 0 }
    await first.sandbox.detach()
    const again = await first.driver.adopt(first.sandbox.id)
    if (again === undefined) throw new Error('it was not adopted')
    const running = HostSandbox.resume(again, safe, first.sink, first.around)
    await expect(running.connect(80)).rejects.toMatchObject({ code: 'job_not_running' })
    expect(first.rests.at(-1)).toBe(true)
    await running.wake()
    await first.more(40)
    expect(whole(first.output())).toBe(true)
    await running.destroy()
  })
})

describe('a copy of a sandbox', () => {
  it('is made between two saves of its workspace, and of one that is awake only', async () => {
    const driver = new FakeDriver({ programs: counts })
    const sandbox = await driver.create(shape)
    await sandbox.attach(shape)
    const events: string[] = []
    const first = Promise.withResolvers<void>()
    const workspace = {
      save: async () => {
        events.push('save')
        if (events.length === 1) await first.promise
        events.push('saved')
      },
    } as unknown as OpenWorkspace
    const fork = async () => {
      events.push('fork')
      return { withMemory: false } as Forked
    }
    const running = await HostSandbox.start(sandbox, { script: 'counts', environment: {} }, async () => undefined, {
      attachMs: () => 0,
      environment: undefined,
      workspace,
      egress: {} as SandboxEgress,
      end: () => sandbox.destroy(),
      onAsleep: () => undefined,
      fork,
    })
    const spec = { image: 'debian-12', isolation: 'auto', vcpus: 1, memoryMb: 512, diskGb: 2, persistent: true } as const
    const saving = running.saveWorkspace({ final: false })
    const forked = running.fork(spec)
    const next = running.saveWorkspace({ final: false })
    const asleep = running.sleep()
    first.resolve()
    await Promise.all([saving, next, asleep])
    expect(await forked).toEqual({ withMemory: false })
    expect(events).toEqual(['save', 'saved', 'fork', 'save', 'saved'])
    await expect(running.fork(spec)).rejects.toMatchObject({ code: 'job_not_running' })
    await running.destroy()
  })
})
