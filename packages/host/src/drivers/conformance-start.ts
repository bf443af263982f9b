import type { ProgramRequest, RunningProgram } from '@mags/protocol'
import { afterAll, beforeAll, describe, expect, it, type TestContext } from 'vitest'
import { startProgram } from '../sandboxes/start-program.ts'
import { conformancePrograms as programs } from './conformance-programs.ts'
import { digest, finish, sh, transcript } from './conformance-run.ts'
import type { ConformanceSetup } from './conformance-setup.ts'
import type { Sandbox } from './driver.ts'

const pty = { rows: 24, cols: 80 }

/** The third group of the conformance suite: programs that somebody talks with, on a terminal and without. */
export function describeStartConformance(name: string, setUp: () => Promise<ConformanceSetup>, timeScale: number) {
  describe(`${name} driver with programs that somebody talks with`, { timeout: 30_000 * timeScale }, () => {
    let setup: ConformanceSetup
    let box: Sandbox

    const attached = async () => {
      const sandbox = await setup.driver.create(setup.driver.warmShape(setup.shape))
      await sandbox.attach(setup.shape)
      return sandbox
    }
    const needsKernel = (context: TestContext) => {
      if (!setup.real) context.skip('the driver has no kernel behind it')
    }
    beforeAll(async () => {
      setup = await setUp()
      box = await attached()
    }, 120_000 * timeScale)
    afterAll(async () => {
      await box?.destroy()
      await setup?.dispose()
    }, 60_000 * timeScale)

    /** Runs it with its output as text. */
    function start(program: string, request: Partial<ProgramRequest> = {}, sandbox = box) {
      const { output, until, text } = transcript()
      const running = startProgram(sandbox, { command: ['/bin/sh', '-c', program], ...request, kind: 'command' } as ProgramRequest, (source, bytes) => {
        output(source === 'stdout' ? 'stdout' : 'stderr', 0, Buffer.from(bytes))
      })
      return { running, until, text }
    }
    const type = (running: RunningProgram, text: string) => running.write(Buffer.from(text))
    /** Waits in the sandbox until nothing has this process id. */
    const untilGone = async (pid: string) => {
      expect(pid).toMatch(/^\d+$/)
      expect((await finish(box, sh(`while kill -0 ${pid} 2>/dev/null; do sleep 0.05; done; echo gone`))).stdout).toBe('gone\n')
    }

    it('takes input as it comes, until it ends', async () => {
      const { running, until, text } = start(programs.cat)
      await type(running, 'one ')
      await until((seen) => seen === 'one ')
      await type(running, 'two')
      running.end()
      expect(await running.exit).toMatchObject({ kind: 'exited', exitCode: 0 })
      await running.outputEnd
      expect(text()).toBe('one two')
      running.close()
      running.close()
    })

    it('starts at home with the environment of every program and the own one', async () => {
      const { running, text } = start(programs.streams, { environment: { GREETING: 'hello' } })
      expect(await running.exit).toMatchObject({ kind: 'exited', exitCode: 3 })
      await running.outputEnd
      running.close()
      expect(text().split('\n').toSorted()).toEqual(['', '/root', 'to err', 'to out: hello'])
    })

    it('says what did not start', async () => {
      const running = startProgram(box, { kind: 'command', command: ['/nonexistent'] }, () => undefined)
      expect(await running.exit).toMatchObject({ kind: 'not-started', exitCode: 127, reason: expect.stringContaining('/nonexistent did not start') as string })
      await running.outputEnd
      running.close()
    })

    it('passes a signal on', async () => {
      const { running, until } = start(programs.trapTerm)
      await until((seen) => seen.includes('ready'))
      running.signal(15)
      expect(await running.exit).toMatchObject({ kind: 'exited', exitCode: 7 })
      running.close()
    })

    it('holds a writer back while nobody reads', async (context) => {
      needsKernel(context)
      const { running, until, text } = start(programs.readLater)
      await until((seen) => seen === 'waiting\n')
      let taken = false
      const written = running.write(Buffer.alloc(1_000_000)).then(() => {
        taken = true
      })
      await box.agent.ping()
      await box.agent.ping()
      expect(taken).toBe(false)
      await finish(box, sh(programs.readNow))
      await written
      running.end()
      expect(await running.exit).toMatchObject({ exitCode: 0 })
      running.close()
      expect(text()).toBe('waiting\n1000000\n')
    })

    it('carries bytes both ways unchanged', async () => {
      const bytes = Buffer.alloc(700_000, 'all the bytes there are: \0\x03\x04\xff', 'latin1')
      const parts: Buffer[] = []
      const running = startProgram(box, { kind: 'command', command: ['/bin/sh', '-c', programs.cat] }, async (_source, part) => {
        await new Promise((resolve) => setImmediate(resolve))
        parts.push(Buffer.from(part))
      })
      for (let at = 0; at < bytes.length; at += 50_000) await running.write(bytes.subarray(at, at + 50_000))
      running.end()
      await running.exit
      await running.outputEnd
      running.close()
      expect(digest(Buffer.concat(parts))).toBe(digest(bytes))
    })

    it('kills a program when it is closed', async (context) => {
      needsKernel(context)
      const { running, until } = start(programs.sayPid)
      const pid = (await until((seen) => seen.endsWith('\n'))).trim()
      running.close()
      expect(await running.exit).toMatchObject({ kind: 'signalled', exitCode: 137, reason: 'it was closed before it ended' })
      await running.outputEnd
      await expect(running.write(Buffer.from('x'))).rejects.toThrow()
      await untilGone(pid)
    })

    it.each([undefined, pty])('kills a program whose output cannot be taken (terminal: %o)', async (terminal) => {
      const said = Promise.withResolvers<string>()
      const running = startProgram(
        box,
        { kind: 'command', command: ['/bin/sh', '-c', setup.real ? programs.sayPidAndMore : programs.ticker], ...(terminal ? { pty: terminal } : {}) },
        async (_source, bytes) => {
          said.resolve(Buffer.from(bytes).toString().split(/\r?\n/)[0] ?? '')
          throw new Error('the client does not read')
        },
      )
      expect(await running.exit).toMatchObject({ kind: 'signalled', exitCode: 137, reason: 'its output could not be taken: the client does not read' })
      await running.outputEnd
      if (setup.real) await untilGone(await said.promise)
    })

    it('tells when its sandbox is lost', async () => {
      const sandbox = await attached()
      const { running, until } = start(programs.ticker, {}, sandbox)
      await until((seen) => seen.length > 0)
      await sandbox.destroy()
      expect(await running.exit).toMatchObject({ kind: 'sandbox-lost', exitCode: 137 })
      await running.outputEnd
      running.close()
      const late = start(programs.hello, {}, sandbox)
      expect(await late.running.exit).toMatchObject({ kind: 'sandbox-lost' })
      await late.running.outputEnd
    })

    it('serves SFTP from home, to the end of input', async (context) => {
      needsKernel(context)
      const packet = (type: number, ...fields: (number | string | Buffer)[]) => {
        const encoded = fields.map((field) => {
          if (Buffer.isBuffer(field)) return field
          const number = Buffer.alloc(4)
          number.writeUInt32BE(typeof field === 'number' ? field : Buffer.byteLength(field))
          return typeof field === 'number' ? number : Buffer.concat([number, Buffer.from(field)])
        })
        const body = Buffer.concat([Buffer.from([type]), ...encoded])
        const length = Buffer.alloc(4)
        length.writeUInt32BE(body.length)
        return Buffer.concat([length, body])
      }
      let answers = Buffer.alloc(0)
      const running = startProgram(box, { kind: 'sftp' }, (_source, bytes) => {
        answers = Buffer.concat([answers, bytes])
      })
      // INIT; REALPATH of "."; OPEN for writing, WRITE to what is then the first handle, CLOSE.
      const handle = Buffer.from('000000080000000000000001', 'hex')
      await running.write(packet(1, 3))
      await running.write(packet(16, 1, '.'))
      await running.write(Buffer.concat([packet(3, 2, 'by sftp', 0x1a, 0), packet(6, 3, handle, 0, 0, 'written'), packet(4, 4, handle)]))
      running.end()
      expect(await running.exit).toMatchObject({ kind: 'exited', exitCode: 0 })
      await running.outputEnd
      running.close()
      const types: number[] = []
      for (let at = 0; at < answers.length; at += 4 + answers.readUInt32BE(at)) types.push(answers[at + 4] ?? 0)
      expect(types).toEqual([2, 104, 102, 101, 101])
      expect(answers.includes('\0\0\0\x05/root')).toBe(true)
      expect((await finish(box, sh('cat "/root/by sftp"; stat -c :%a:%U /root/by*'))).stdout).toBe('written:644:root\n')
    })

    it('gives a terminal of a size, which is the controlling one', async (context) => {
      needsKernel(context)
      const { running, text } = start(programs.terminal, { pty })
      expect(await running.exit).toMatchObject({ kind: 'exited', exitCode: 0 })
      await running.outputEnd
      running.close()
      expect(text()).toMatch(/^\/dev\/pts\/\d+\r\n24 80\r\n136 1\r\nthrough\r\n$/)
    })

    it('lets programs open terminals of their own', async (context) => {
      needsKernel(context)
      expect((await finish(box, sh(programs.ownTerminal))).stdout).toBe('a terminal of its own\n')
    })

    it('tells a program of a new window size', async (context) => {
      needsKernel(context)
      const { running, until, text } = start(programs.windowChange, { pty })
      await until((seen) => seen.includes('ready'))
      running.resize({ rows: 50, cols: 132 })
      expect(await running.exit).toMatchObject({ exitCode: 0 })
      await running.outputEnd
      running.close()
      expect(text()).toBe('ready\r\n50 132\r\n')
    })

    it('loses nothing of what a program wrote to its terminal at last', async (context) => {
      needsKernel(context)
      let text = ''
      const running = startProgram(box, { kind: 'command', command: ['/bin/sh', '-c', programs.manyLines], pty }, async (_source, bytes) => {
        await new Promise((resolve) => setImmediate(resolve))
        text += Buffer.from(bytes).toString()
      })
      expect(await running.exit).toMatchObject({ exitCode: 6 })
      const atExit = text
      await running.outputEnd
      running.close()
      expect(digest(Buffer.from(atExit))).toBe(digest(Buffer.from(Array.from({ length: 50_000 }, (_, index) => `${index + 1}\r\n`).join(''))))
    })

    it('rubs out whole characters', async (context) => {
      needsKernel(context)
      const { running, until, text } = start(programs.editedLine, { pty })
      // To the end of the line: what is typed in the middle of it is shown there.
      await until((seen) => seen.includes('iutf8\r\n'))
      await type(running, 'äé\x7f\n')
      expect(await running.exit).toMatchObject({ exitCode: 0 })
      await running.outputEnd
      running.close()
      expect(text()).toMatch(/^iutf8\r\n[\s\S]*\n2\r\n$/)
    })

    it('has job control: Ctrl-C and Ctrl-Z reach the job in the foreground and not the shell', async (context) => {
      needsKernel(context)
      const { running, until, text } = start(programs.interactive, { pty, environment: { TERM: 'dumb' } })
      await until((seen) => seen.includes('> '))
      // The quotes keep what is typed, and shown, apart from what is said.
      await type(running, 'sh -c "echo be\'\'gin; exec sleep 100000"\n')
      await until((seen) => seen.includes('begin'))
      await type(running, '\x03')
      await until((seen) => seen.includes('^C'))
      await type(running, 'echo "code $""?" is $?\n')
      await until((seen) => seen.includes('is 130'))
      await type(running, 'sh -c "echo ag\'\'ain; exec sleep 100000"\n')
      await until((seen) => seen.includes('again'))
      await type(running, '\x1a')
      await until((seen) => /stopped/i.test(seen))
      await type(running, 'kill %1; fg; echo "le""ft"\n')
      await until((seen) => seen.includes('left'))
      await type(running, 'exit 9\n')
      expect(await running.exit).toMatchObject({ kind: 'exited', exitCode: 9 })
      running.close()
      expect(text()).not.toMatch(/job control|access tty/i)
    })

    it('ends a shell at the end of input', async (context) => {
      needsKernel(context)
      const { running, until } = start(programs.interactive, { pty, environment: { TERM: 'dumb' } })
      await until((seen) => seen.includes('> '))
      running.end()
      expect(await running.exit).toMatchObject({ kind: 'exited', exitCode: 0 })
      running.close()
    })

    it('hangs up when closed: the program hears of it, a job in the foreground ends', async (context) => {
      needsKernel(context)
      const traps = start(programs.hangUp, { pty })
      await traps.until((seen) => seen.includes('ready'))
      traps.running.close()
      expect(await traps.running.exit).toMatchObject({ kind: 'signalled', exitCode: 129 })
      expect((await finish(box, sh(programs.afterHangUp))).stdout).toBe('hung up\n')
      const shell = start(programs.interactive, { pty, environment: { TERM: 'dumb' } })
      await shell.until((seen) => seen.includes('> '))
      await type(shell.running, 'sh -c "echo job \\$\\$; exec sleep 100000"\n')
      const pid = /job (\d+)\r/.exec(await shell.until((seen) => /job \d+\r/.test(seen)))?.[1] ?? ''
      shell.running.close()
      await untilGone(pid)
    })
  })
}
