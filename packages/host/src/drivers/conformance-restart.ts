import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { AgentExec } from '../agent/connection.ts'
import { conformancePrograms as programs } from './conformance-programs.ts'
import { finish, sh, transcript } from './conformance-run.ts'
import type { ConformanceSetup } from './conformance-setup.ts'
import type { Sandbox } from './driver.ts'
import { hostnameOf } from './sandbox-id.ts'

/** The second group of the conformance suite: what a driver promises when one daemon ends and the next takes over. */
export function describeRestartConformance(name: string, setUp: () => Promise<ConformanceSetup>, timeScale: number) {
  describe(`${name} driver over a restart of the daemon`, { timeout: 30_000 * timeScale }, () => {
    let setup: ConformanceSetup
    beforeAll(async () => {
      setup = await setUp()
    }, 120_000 * timeScale)
    afterAll(() => setup?.dispose(), 60_000 * timeScale)

    it('adopts a kept sandbox with its output exactly once, and sweeps the others', async () => {
      const { driver, shape } = setup
      const make = async () => {
        const sandbox = await driver.create(driver.warmShape(shape))
        await sandbox.attach(shape)
        return sandbox
      }
      const [kept, left] = await Promise.all([make(), make()])
      await kept.keep(true)
      // The first piece is safe; the second is on its way when the daemon stops.
      let stored = ''
      const second = Promise.withResolvers<void>()
      const exec: AgentExec = kept.agent.exec(sh(programs.countTo20000, { windowBytes: 16 << 10 }), async (_stream, offset, bytes) => {
        if (offset > 0) {
          second.resolve()
          return new Promise<never>(() => undefined)
        }
        stored += bytes.toString()
        return undefined
      })
      const lost = expect(exec.exit).rejects.toThrow()
      await second.promise
      await Promise.all([kept.detach(), left.detach()])
      await lost

      const next = (await setup.reopen?.()) ?? driver
      const again = await next.adopt(kept.id)
      expect(await next.adopt('ffffffffffff')).toBeUndefined()
      await next.sweep()
      if (again === undefined) throw new Error('the kept sandbox was not adopted')
      try {
        expect(again.id).toBe(kept.id)
        const [channel] = again.agent.liveChannels
        if (channel === undefined) throw new Error('the program is not among the live channels')
        const resumed = again.agent.resumeExec(channel.channel, { stdout: stored.length, stderr: 0 }, async (_stream, offset, bytes) => {
          expect(offset).toBe(stored.length)
          stored += bytes.toString()
          return undefined
        })
        expect(await resumed.pid).toBe(channel.pid)
        expect((await resumed.exit).code).toBe(4)
        resumed.close()
        expect(stored).toBe(Array.from({ length: 20_000 }, (_, index) => `${index + 1}\n`).join(''))
        expect((await finish(again, sh(programs.uname))).stdout).toBe(`${hostnameOf(again.id)}\n`)
        expect(await next.adopt(left.id)).toBeUndefined()
      } finally {
        await again.destroy()
      }
      expect(await next.adopt(kept.id)).toBeUndefined()
    })

    it('adopts one that slept, frozen or hibernated, and frees those that nobody wants', async (context) => {
      const { shape } = setup
      if (setup.real && setup.reopen === undefined) context.skip('the set-up has no second daemon')
      const driver = (await setup.reopen?.()) ?? setup.driver
      const made: { sandbox: Sandbox; text: string }[] = []
      for (const rest of ['frozen', 'hibernated', 'frozen', 'hibernated'] as const) {
        const sandbox = await driver.create(driver.warmShape(shape))
        await sandbox.attach(shape)
        await sandbox.keep(true)
        const { output, until, text } = transcript()
        const exec = sandbox.agent.exec(sh(programs.counter, { windowBytes: 16 << 10 }), output)
        exec.exit.catch(() => undefined)
        await until((seen) => seen.length > 100)
        await sandbox.freeze()
        if (rest === 'hibernated') await sandbox.hibernate?.()
        await sandbox.detach()
        made.push({ sandbox, text: text() })
      }
      const next = (await setup.reopen?.()) ?? driver
      const adopted = await Promise.all(made.slice(0, 2).map(({ sandbox }) => next.adopt(sandbox.id)))
      await next.sweep()
      for (const [index, sandbox] of adopted.entries()) {
        const before = made[index]
        if (sandbox === undefined || before === undefined) throw new Error('a sleeping sandbox was not adopted')
        const hibernates = sandbox.hibernate !== undefined
        expect(sandbox.hibernated ?? false).toBe(hibernates && index === 1)
        if (sandbox.hibernated) await setup.gone?.(sandbox)
        await sandbox.thaw()
        const [channel] = sandbox.agent.liveChannels
        if (channel === undefined) throw new Error('the program is not among the live channels')
        const after = transcript()
        const exec = sandbox.agent.resumeExec(channel.channel, { stdout: before.text.length, stderr: 0 }, (stream, offset, bytes) => {
          if (after.text() === '') expect(offset).toBe(before.text.length)
          return after.output(stream, offset, bytes)
        })
        exec.exit.catch(() => undefined)
        await after.until((seen) => seen.length > 1000)
        const lines = `${before.text}${after.text()}`.split('\n').slice(0, -1)
        expect(lines.every((line, at) => line === `${at}`)).toBe(true)
        await sandbox.freeze()
        await sandbox.destroy()
      }
      for (const { sandbox } of made.slice(2)) expect(await next.adopt(sandbox.id)).toBeUndefined()
    })
  })
}
