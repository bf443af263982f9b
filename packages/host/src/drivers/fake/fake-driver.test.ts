import { createHash } from 'node:crypto'
import type { Duplex } from 'node:stream'
import { describe, expect, it } from 'vitest'
import { describeDriverConformance } from '../conformance.ts'
import { conformancePrograms, conformanceScript } from '../conformance-programs.ts'
import { FakeDriver } from './fake-driver.ts'
import { type FakePrograms, FakeWorld } from './fake-machine.ts'
import { cat, dieWith, echo, emitBytes, exitWith, neverEnd, runOutOfMemory } from './fake-programs.ts'

const shape = { image: 'debian-12', vcpus: 1, memoryMb: 256, diskGb: 1 }

/** Each program of the suite as a function, to hold the fake to what the real drivers do. */
const suite: FakePrograms = {
  [conformancePrograms.hello]: echo('hello\n'),
  [conformancePrograms.streams]: async (process) => {
    await process.write('stdout', `to out: ${process.request.env.GREETING}\n${process.request.cwd}\n`)
    await process.write('stderr', 'to err\n')
    return 3
  },
  [conformancePrograms.whoAmI]: echo('0\n/root\n/root\n/root\n'),
  [conformanceScript]: async (process) => {
    await process.write('stdout', `${process.request.env.GREETING} from a script\n`)
    return 5
  },
  [conformancePrograms.killItself]: exitWith({ signal: 9 }),
  [conformancePrograms.trapTerm]: async (process) => {
    await process.write('stdout', 'ready\n')
    await process.nextSignal()
    await process.write('stdout', 'got\n')
    return 7
  },
  [conformancePrograms.cat]: cat,
  [conformancePrograms.noStdin]: echo('done\n'),
  [conformancePrograms.manyBytes]: async (process) => {
    const bytes = Buffer.from(Array.from({ length: 2 << 20 }, (_, index) => index % 251))
    await process.write('stderr', `${createHash('sha256').update(bytes).digest('hex')} -\n`)
    return (await emitBytes(2 << 20)(process)) as number
  },
  [conformancePrograms.discard]: async (process) => {
    await emitBytes(3_000_000, 65_536)(process)
    await process.write('stderr', 'last\n')
    return 0
  },
  [conformancePrograms.uname]: async (process) => {
    await process.write('stdout', `${process.machine.hostname}\n`)
    return 0
  },
  [conformancePrograms.etcFiles]: async (process) => {
    const read = (path: string) => process.machine.files.read(path, 0, 4096)
    await process.write('stdout', `${read('/etc/hosts')}--\n${read('/etc/resolv.conf')}`)
    return 0
  },
  [conformancePrograms.ticker]: async (process) => {
    for (let i = 1; ; i++) await process.write('stdout', `${i}\n`)
  },
  [conformancePrograms.counter]: async (process) => {
    for (let i = 0; ; i++) await process.write('stdout', `${i}\n`)
  },
  [conformancePrograms.countTo20000]: async (process) => {
    for (let i = 1; i <= 20_000; i += 100) await process.write('stdout', Array.from({ length: 100 }, (_, index) => `${i + index}\n`).join(''))
    return 4
  },
  [conformancePrograms.daemon]: async (process) => {
    process.leaveBehind(
      (async () => {
        while (!process.machine.files.list('/tmp', 10).entries.some(({ name }) => name === 'go')) await process.machine.turn()
        await process.write('stdout', 'daemon got word\n')
      })(),
    )
    await process.write('stdout', 'started\n')
    return 0
  },
  [conformancePrograms.wakeDaemon]: (process) => {
    process.machine.files.write('/tmp/go', Buffer.from('word\n'), { mode: 0o600, offset: 0, truncate: true, parents: false })
    return 0
  },
  [conformancePrograms.echoServer]: async (process) => {
    await process.write('stdout', 'ready\n')
    return { signal: await process.nextSignal() }
  },
}

function echoServer(socket: Duplex) {
  let total = 0
  socket.on('data', (bytes: Buffer) => {
    total += bytes.length
    socket.write(bytes)
  })
  socket.on('end', () => socket.end(`\ntotal ${total}\n`))
}

describeDriverConformance('fake', async () => {
  const world = new FakeWorld()
  const open = () => new FakeDriver({ programs: suite, ports: { 7007: echoServer }, images: [shape.image], world })
  const driver = open()
  return {
    driver,
    shape,
    real: false,
    reopen: async () => open(),
    kill: async (sandbox) => driver.machine(sandbox.id).die('killed from outside'),
    dispose: async () => {
      const left = driver.machines.length
      if (left > 0) throw new Error(`${left} machines were left behind`)
    },
  }
})

describe('FakeDriver', () => {
  it('holds and fails creates when told', async () => {
    const driver = new FakeDriver()
    const release = driver.holdCreates()
    const making = driver.create(shape)
    expect(driver.machines).toHaveLength(0)
    release()
    expect((await making).shape).toEqual(shape)
    driver.failCreates('no space left on device')
    await expect(driver.create(shape)).rejects.toThrow('no space left on device')
    driver.failCreates(undefined)
    await driver.create(shape)
    expect(driver.asked).toHaveLength(3)
    expect(driver.machines.map(({ id }) => id)).toEqual(['000000000001', '000000000002'])
  })

  it('runs the ready-made programs', async () => {
    const driver = new FakeDriver({
      programs: { boom: dieWith('pulled the plug'), hog: runOutOfMemory, wait: neverEnd, seven: exitWith(7), bytes: emitBytes(10, 4) },
    })
    const sandbox = await driver.create(shape)
    const run = (name: string) => sandbox.agent.exec({ argv: [name], env: {} }, () => undefined)
    expect((await run('seven').exit).code).toBe(7)
    expect(await run('hog').exit).toMatchObject({ kind: 'signalled', code: 9 })
    expect(await sandbox.ranOutOfMemory()).toBe(true)
    const pieces: number[] = []
    await sandbox.agent.exec({ argv: ['bytes'], env: {} }, (_stream, offset, bytes) => {
      pieces.push(offset, ...bytes)
      return undefined
    }).exit
    expect(pieces).toEqual([0, 0, 1, 2, 3, 4, 4, 5, 6, 7, 8, 8, 9])
    const waiting = run('wait')
    waiting.signal(15)
    expect(await waiting.exit).toMatchObject({ kind: 'signalled', code: 15 })
    const stuck = run('wait')
    run('boom')
    await expect(stuck.exit).rejects.toThrow('pulled the plug')
    expect((await sandbox.agent.closed)?.message).toBe('pulled the plug')
    expect(await sandbox.died).toEqual({ reason: 'pulled the plug' })
    expect(driver.machines).toHaveLength(0)
  })
})
