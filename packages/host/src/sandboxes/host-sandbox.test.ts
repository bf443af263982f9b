import { MagsError, type ScriptSpec } from '@mags/protocol'
import { describe, expect, it } from 'vitest'
import type { Sandbox } from '../drivers/driver.ts'
import { FakeDriver } from '../drivers/fake/fake-driver.ts'
import type { FakeProgram, FakePrograms } from '../drivers/fake/fake-machine.ts'
import { cat, neverEnd } from '../drivers/fake/fake-programs.ts'
import type { SandboxEgress } from '../egress/sandbox-egress.ts'
import { HostSandbox, type Surroundings } from './host-sandbox.ts'

const shape = { image: 'debian-12', vcpus: 1, memoryMb: 512, diskGb: 2 }

function around(sandbox: Sandbox): Surroundings {
  const fork = async () => {
    throw new Error('no forks here')
  }
  return {
    environment: { PATH: '/opt/bin', KIND: 'image' },
    workspace: undefined,
    egress: {} as SandboxEgress,
    end: () => sandbox.destroy(),
    onAsleep: () => undefined,
    fork,
  }
}

async function start(script: Partial<ScriptSpec>, programs: FakePrograms) {
  const driver = new FakeDriver({ programs: { '': neverEnd, ...programs } })
  const sandbox = await driver.create(shape)
  await sandbox.attach(shape)
  let output = ''
  const running = await HostSandbox.start(
    sandbox,
    { script: '', environment: {}, ...script },
    async ({ bytes }) => {
      output += Buffer.from(bytes).toString()
      return undefined
    },
    { attachMs: () => 0, ...around(sandbox) },
  )
  return { running, sandbox, output: () => output, [Symbol.asyncDispose]: () => sandbox.destroy() }
}

async function* pieces(...texts: string[]) {
  for (const text of texts) yield Buffer.from(text)
}

describe('a sandbox that runs a job', () => {
  const showFile: FakePrograms = {
    show: async (process) => {
      await process.write('stdout', process.machine.files.read('/root/a/data.csv', 0, 100))
      return 0
    },
  }

  it('has its files before the script starts', async () => {
    const files = [{ path: '/root/a/data.csv', content: () => pieces('1,', '2') }]
    await using job = await start({ script: 'show', files }, showFile)
    expect(await job.running.exited).toMatchObject({ exitCode: 0 })
    expect(job.output()).toBe('1,2')
  })

  it('has the environment of its image below its own, in every program', async () => {
    const tell: FakePrograms = {
      tell: async (process) => {
        const { PATH, KIND, HOME } = process.request.env ?? {}
        await process.write('stdout', Buffer.from(`${PATH} ${KIND} ${HOME};`))
        return 0
      },
    }
    await using job = await start({ script: 'tell', environment: { KIND: 'job' } }, tell)
    await job.running.exited
    expect(job.output()).toBe('/opt/bin job /root;')
    let told = ''
    const hear = (_source: string, bytes: Uint8Array) => {
      told += Buffer.from(bytes).toString()
    }
    await job.running.exec({ command: ['tell'], timeoutMs: 5000 }, hear)
    await job.running.start({ kind: 'command', command: ['tell'] }, hear).exit
    expect(told).toBe('/opt/bin image /root;/opt/bin image /root;')
  })

  it('does not start a script whose files cannot be had', async () => {
    const content = () => {
      throw new MagsError('not_found', 'the content of the file is gone')
    }
    await expect(start({ script: 'show', files: [{ path: '/root/a', content }] }, showFile)).rejects.toThrow('the content of the file is gone')
  })

  it('gives a program its input whole or as it comes', async () => {
    await using job = await start({}, { cat })
    for (const stdin of [Buffer.from('some text'), pieces('some', ' text')]) {
      let said = ''
      const exit = await job.running.exec({ command: ['cat'], stdin, timeoutMs: 10_000 }, (_source, bytes) => {
        said += Buffer.from(bytes).toString()
      })
      expect([exit.exitCode, said]).toEqual([0, 'some text'])
    }
  })

  const talks: FakeProgram = async (process) => {
    await process.write('stdout', Buffer.from('word'))
    return { signal: await process.nextSignal() }
  }

  it('ends a program whose output nobody takes, and tells why', async () => {
    await using job = await start({}, { talks })
    const broken = async () => {
      throw new Error('the client does not read')
    }
    await expect(job.running.exec({ command: ['talks'], timeoutMs: 10_000 }, broken)).rejects.toThrow('the client does not read')
  })

  it('goes on with a script that is still there after a restart, and calls none good that it knows nothing of', async () => {
    const driver = new FakeDriver({ programs: { waits: neverEnd } })
    const sink = async () => undefined
    const restarted = async (script?: string) => {
      const sandbox = await driver.create(shape)
      await sandbox.attach(shape)
      await sandbox.keep(true)
      if (script !== undefined) await HostSandbox.start(sandbox, { script, environment: {} }, sink, { ...around(sandbox), attachMs: () => 0 })
      await sandbox.detach()
      const again = await driver.adopt(sandbox.id)
      if (again === undefined) throw new Error('the kept sandbox was not adopted')
      return HostSandbox.resume(again, { stdout: 0, stderr: 0 }, sink, around(again))
    }
    const running = await restarted('waits')
    await running.signal(15)
    expect(await running.exited).toMatchObject({ kind: 'signalled', exitCode: 143 })
    await running.destroy()
    const never = await restarted()
    expect(await never.exited).toMatchObject({ kind: 'unknown', reason: expect.stringContaining('not known') as string })
    await never.destroy()
  })

  it('ends a program whose input fails, and tells why', async () => {
    await using job = await start({}, { waits: neverEnd })
    async function* broken() {
      yield Buffer.from('half')
      throw new Error('the client went away')
    }
    await expect(job.running.exec({ command: ['waits'], stdin: broken(), timeoutMs: 10_000 }, () => undefined)).rejects.toThrow('the client went away')
  })
})
