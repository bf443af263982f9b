import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { conformancePrograms as programs } from './conformance-programs.ts'
import { filesOf, finish, sh, transcript } from './conformance-run.ts'
import type { ConformanceSetup } from './conformance-setup.ts'
import type { Sandbox } from './driver.ts'

/** What a driver promises of sandboxes that sleep: frozen, with their memory, or hibernated, without. */
export function describeSleepConformance(name: string, setUp: () => Promise<ConformanceSetup>, timeScale: number) {
  describe(`${name} driver and sandboxes that sleep`, { timeout: 30_000 * timeScale }, () => {
    let setup: ConformanceSetup
    let other: Sandbox
    const attached = async () => {
      const sandbox = await setup.driver.create(setup.driver.warmShape(setup.shape))
      await sandbox.attach(setup.shape)
      return sandbox
    }
    /** A sandbox for one test that may ruin it. */
    const withSandbox = async (use: (sandbox: Sandbox) => Promise<void>) => {
      const sandbox = await attached()
      try {
        await use(sandbox)
      } finally {
        await sandbox.destroy()
      }
    }

    beforeAll(async () => {
      setup = await setUp()
      other = await attached()
    }, 120_000 * timeScale)
    afterAll(async () => {
      await other?.destroy()
      await setup?.dispose()
    }, 60_000 * timeScale)

    it('uses no processor time while frozen', async (context) => {
      if (!setup.real) context.skip('the driver has no kernel behind it')
      const used = setup.processorTime ?? ((sandbox: Sandbox) => sandbox.activity())
      await withSandbox(async (sandbox) => {
        const { output, until } = transcript()
        const exec = sandbox.agent.exec(sh(programs.spin), output)
        await until((seen) => seen.includes('ready'))
        const running = await used(sandbox)
        if (running === undefined) return context.skip('processor time is not counted here')
        while ((await used(sandbox)) === running) await finish(other, sh(programs.hello))
        await sandbox.freeze()
        await sandbox.freeze()
        const before = await used(sandbox)
        for (let trip = 0; trip < 20; trip++) await finish(other, sh(programs.hello))
        expect(await used(sandbox)).toBe(before)
        await sandbox.thaw()
        await sandbox.thaw()
        while ((await used(sandbox)) === before) await finish(other, sh(programs.hello))
        exec.close()
        expect((await finish(sandbox, sh(programs.hello))).stdout).toBe('hello\n')
      })
    })

    it('notices the death of one that was frozen, at the latest as it is thawed', async (context) => {
      if (!setup.kill) context.skip('the set-up cannot kill a machine from outside')
      const sandbox = await attached()
      await sandbox.freeze()
      await setup.kill?.(sandbox)
      // What stands still cannot die in every layout of control groups.
      await sandbox.thaw().catch(() => undefined)
      expect((await sandbox.died).reason).not.toBe('')
      await sandbox.destroy()
    })

    it('hibernates and goes on: files, memory, time and output', async (context) => {
      await withSandbox(async (sandbox) => {
        if (sandbox.hibernate === undefined) return context.skip('this kind of sandbox cannot')
        const before = transcript()
        let safe = 0
        const exec = sandbox.agent.exec(sh(programs.counter, { windowBytes: 16 << 10 }), (stream, offset, bytes) => {
          expect(offset).toBe(safe)
          safe += bytes.length
          return before.output(stream, offset, bytes)
        })
        exec.exit.catch(() => undefined)
        await filesOf(sandbox).put('/root/kept', 'on disk')
        let text = ''
        for (let round = 0; round < 2; round++) {
          await before.until((seen) => seen.length > text.length + 100)
          await sandbox.freeze()
          await sandbox.hibernate()
          await sandbox.hibernate?.()
          expect(sandbox.hibernated).toBe(true)
          await setup.gone?.(sandbox)
          await expect(sandbox.agent.ping()).rejects.toThrow()
          text = before.text()
          await sandbox.thaw()
          expect(sandbox.hibernated).toBe(false)
          const [channel] = sandbox.agent.liveChannels
          if (channel === undefined) throw new Error('the program is not among the live channels')
          sandbox.agent.resumeExec(channel.channel, { stdout: safe, stderr: 0 }, (stream, offset, bytes) => {
            expect(offset).toBe(safe)
            safe += bytes.length
            return before.output(stream, offset, bytes)
          })
        }
        await before.until((seen) => seen.length > text.length + 1000)
        const lines = before.text().split('\n').slice(0, -1)
        expect(lines.every((line, index) => line === `${index}`)).toBe(true)
        expect((await filesOf(sandbox).get('/root/kept')).toString()).toBe('on disk')
        const told = Number((await finish(sandbox, sh(programs.clock))).stdout)
        expect(Math.abs(told - Date.now() / 1000)).toBeLessThan(5)
      })
    })

    it('has heard what it was asked for right before', async (context) => {
      await withSandbox(async (sandbox) => {
        if (sandbox.hibernate === undefined) return context.skip('this kind of sandbox cannot')
        const exec = sandbox.agent.exec(sh(programs.counter), () => undefined)
        for (const promise of [exec.pid, exec.exit, exec.eof]) promise.catch(() => undefined)
        await sandbox.freeze()
        await sandbox.hibernate()
        await sandbox.thaw()
        expect(sandbox.agent.liveChannels).toHaveLength(1)
      })
    })

    it('can be destroyed while hibernated', async (context) => {
      const sandbox = await attached()
      try {
        if (sandbox.hibernate === undefined) return context.skip('this kind of sandbox cannot')
        await sandbox.freeze()
        await sandbox.hibernate()
      } finally {
        await sandbox.destroy()
      }
      expect((await sandbox.died).reason).not.toBe('')
    })
  })
}
