import { afterAll, beforeAll, describe, expect, it, type TestContext } from 'vitest'
import { conformancePrograms as programs } from './conformance-programs.ts'
import { finish, sh, transcript } from './conformance-run.ts'
import type { ConformanceSetup } from './conformance-setup.ts'
import type { Sandbox } from './driver.ts'

/** What a driver promises of sandboxes that end, and of programs that want too much. */
export function describeEndConformance(name: string, setUp: () => Promise<ConformanceSetup>, timeScale: number) {
  describe(`${name} driver and the end of its sandboxes`, { timeout: 30_000 * timeScale }, () => {
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
    const needsKernel = (context: TestContext) => {
      if (!setup.real) context.skip('the driver has no kernel behind it')
    }
    beforeAll(async () => {
      setup = await setUp()
      other = await attached()
    }, 120_000 * timeScale)
    afterAll(async () => {
      await other?.destroy()
      await setup?.dispose()
    }, 60_000 * timeScale)

    it('breaks connections when it is destroyed, and makes no new ones', async () => {
      const sandbox = await attached()
      const { output, until } = transcript()
      const server = sandbox.agent.exec(sh(programs.echoServer), output)
      for (const end of [server.exit, server.eof, server.pid]) end.catch(() => undefined)
      await until((seen) => seen.includes('ready'))
      const socket = await sandbox.connect(7007)
      socket.on('error', () => undefined)
      const closed = new Promise<void>((resolve) => socket.once('close', () => resolve()))
      await sandbox.destroy()
      await closed
      await expect(sandbox.connect(7007)).rejects.toMatchObject({ code: 'sandbox_failed' })
    })

    it('destroy ends everything, settles `died` and may be called again', async () => {
      const sandbox = await attached()
      const { output, until } = transcript()
      const exec = sandbox.agent.exec(sh(programs.ticker), output)
      await until((seen) => seen.length > 0)
      await Promise.all([sandbox.destroy(), sandbox.destroy()])
      expect((await sandbox.died).reason).not.toBe('')
      await expect(exec.exit).rejects.toThrow()
      await sandbox.agent.closed
      await sandbox.destroy()
    })

    it('destroy works on a warm and on a frozen sandbox', async () => {
      const warm = await setup.driver.create(setup.driver.warmShape(setup.shape))
      await warm.destroy()
      await warm.died
      const frozen = await attached()
      await frozen.freeze()
      await frozen.destroy()
      await frozen.died
    })

    it('a machine that dies by itself settles `died` and fails what ran', async (context) => {
      if (!setup.kill) context.skip('the set-up cannot kill a machine from outside')
      const sandbox = await attached()
      const { output, until } = transcript()
      const exec = sandbox.agent.exec(sh(programs.ticker), output)
      await until((seen) => seen.length > 0)
      await setup.kill?.(sandbox)
      expect((await sandbox.died).reason).not.toBe('')
      await expect(exec.exit).rejects.toThrow()
      await expect(sandbox.agent.ping()).rejects.toThrow()
      await sandbox.destroy()
    })

    it('ends a program that wants too much memory, and tells', async (context) => {
      needsKernel(context)
      await withSandbox(async (sandbox) => {
        const exec = sandbox.agent.exec(sh(programs.memoryHog), () => undefined)
        const exit = await exec.exit.catch(() => undefined)
        if (exit === undefined) expect((await sandbox.died).reason).toMatch(/memory/i)
        else {
          expect([exit.kind, exit.code]).toEqual(['signalled', 9])
          expect(await sandbox.ranOutOfMemory()).toBe(true)
          expect((await finish(sandbox, sh(programs.hello))).stdout).toBe('hello\n')
        }
      })
    })

    it('contains a fork bomb', async (context) => {
      needsKernel(context)
      await withSandbox(async (sandbox) => {
        const { stdout, exit } = await finish(sandbox, sh(programs.forkBomb))
        // Refused by the limit on processes, or killed by that on memory: in any case not through with it.
        expect(['refused\n', '']).toContain(stdout)
        expect(exit.kind).toBe('signalled')
        // The killed take a moment to be gone; until then nothing more starts.
        let after = await finish(sandbox, sh(programs.hello))
        while (after.exit.kind === 'not-started') after = await finish(sandbox, sh(programs.hello))
        expect(after.stdout).toBe('hello\n')
        expect((await finish(other, sh(programs.hello))).stdout).toBe('hello\n')
      })
    })

    it('says why a sandbox cannot be made', async () => {
      const broken = setup.broken ?? { shape: { ...setup.shape, image: 'no-such-image' }, words: /no-such-image/ }
      const making = async () => {
        const sandbox = await setup.driver.create(setup.driver.warmShape(broken.shape))
        try {
          // An image may be chosen as late as here.
          await sandbox.attach(broken.shape)
        } finally {
          await sandbox.destroy()
        }
      }
      await expect(making()).rejects.toThrow(broken.words)
      // And the driver is none the worse for it.
      await withSandbox(async (sandbox) => {
        expect((await finish(sandbox, sh(programs.hello))).stdout).toBe('hello\n')
      })
    })
  })
}
