import { rm } from 'node:fs/promises'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { conformancePrograms as programs } from './conformance-programs.ts'
import { filesOf, finish, sh, transcript } from './conformance-run.ts'
import type { ConformanceSetup } from './conformance-setup.ts'
import type { Sandbox } from './driver.ts'
import { hostnameOf } from './sandbox-id.ts'

const identity = 'cat /proc/sys/kernel/hostname /etc/machine-id; cat /sys/class/net/eth0/address; tail -n 1 /etc/hosts; head -c 32 /dev/urandom | od -An -tx1'

/** What a driver promises of copies of a sandbox that runs, with memory or of its files alone. Needs a real driver. */
export function describeForkConformance(name: string, setUp: () => Promise<ConformanceSetup>, timeScale: number) {
  describe(`${name} driver and copies of running sandboxes`, { timeout: 30_000 * timeScale }, () => {
    let setup: ConformanceSetup
    let source: Sandbox
    beforeAll(async () => {
      setup = await setUp()
      source = await setup.driver.create(setup.driver.warmShape(setup.shape))
      await source.attach(setup.shape)
    }, 120_000 * timeScale)
    afterAll(async () => {
      await source?.destroy()
      await setup?.dispose()
    }, 60_000 * timeScale)

    it('copies memory and files of one moment, and both go on for themselves', async (context) => {
      const { driver } = setup
      if (driver.fork === undefined) return context.skip('this kind of sandbox cannot')
      const original = transcript()
      const exec = source.agent.exec(sh(programs.counter, { windowBytes: 16 << 10 }), original.output)
      exec.exit.catch(() => undefined)
      await filesOf(source).put('/root/both', 'from before')
      await original.until((seen) => seen.length > 100)
      const copy = await driver.fork(source)
      try {
        const seen = original.text().length
        await original.until((text) => text.length > seen + 1000)
        await copy.attach(setup.shape)
        const [channel] = copy.agent.liveChannels
        if (channel === undefined) throw new Error('the program is not among the live channels')
        const copied = transcript()
        let first: number | undefined
        const resumed = copy.agent.resumeExec(channel.channel, { stdout: 0, stderr: 0 }, (stream, offset, bytes) => {
          first ??= offset
          return copied.output(stream, offset, bytes)
        })
        resumed.exit.catch(() => undefined)
        await copied.until((text) => text.length > 1000)
        // The same numbers at the same places, as far as both have them.
        const at = first ?? 0
        await original.until((text) => text.length >= at + 1000)
        expect(copied.text().slice(0, 1000)).toBe(original.text().slice(at, at + 1000))
        const [one, two] = await Promise.all([finish(source, sh(identity)), finish(copy, sh(identity))])
        const [linesOne, linesTwo] = [one.stdout.split('\n'), two.stdout.split('\n')]
        expect(linesTwo[0]).toBe(hostnameOf(copy.id))
        for (let line = 0; line < 5; line++) expect(linesTwo[line], `line ${line}`).not.toBe(linesOne[line])
        expect((await filesOf(copy).get('/root/both')).toString()).toBe('from before')
        await filesOf(copy).put('/root/both', 'of the copy')
        expect((await filesOf(source).get('/root/both')).toString()).toBe('from before')
        // And it is a machine like any other.
        await copy.freeze()
        await copy.hibernate?.()
        await copy.thaw()
        expect((await finish(copy, sh(programs.hello))).stdout).toBe('hello\n')
      } finally {
        exec.close()
        await copy.destroy()
      }
      expect((await finish(source, sh(programs.hello))).stdout).toBe('hello\n')
    })

    it('frees a copy that nobody let go on', async (context) => {
      const { driver } = setup
      if (driver.fork === undefined) return context.skip('this kind of sandbox cannot')
      const copy = await driver.fork(source)
      await copy.destroy()
      await copy.died
      expect((await finish(source, sh(programs.hello))).stdout).toBe('hello\n')
    })

    it('copies the files of one moment, also those that were just written', async (context) => {
      const { driver, shape } = setup
      if (driver.copyUpper === undefined) return context.skip('this kind of sandbox copies memory, too')
      if (setup.copiesFiles === false) return await expect(driver.copyUpper(source)).rejects.toMatchObject({ code: 'not_available' })
      const write =
        'mkdir -p /root/many && i=0; while [ $i -lt 300 ]; do echo $i >/root/many/$i; i=$((i+1)); done; rm /etc/issue; head -c 5000000 /dev/urandom >/root/large; sha256sum /root/large'
      const written = await finish(source, sh(write))
      const file = await driver.copyUpper(source)
      const root = { lowerDisks: [], upperDisk: file }
      await filesOf(source).put('/root/many/0', 'changed afterwards')
      const atOnce = driver.rootAt === 'create'
      const copy = await driver.create(driver.warmShape(shape), atOnce ? root : undefined)
      try {
        await copy.attach(shape, atOnce ? undefined : root)
        const look = 'sha256sum /root/large; cat /root/many/* | sort -n | sha256sum; seq 0 299 | sha256sum; ls /etc/issue 2>/dev/null; echo own >/root/many/1'
        const [large, many, expected, issue] = (await finish(copy, sh(look))).stdout.split('\n')
        expect(`${large}\n`).toBe(written.stdout)
        expect(many).toBe(expected)
        expect(issue).toBe('')
        expect((await finish(copy, sh(programs.uname))).stdout).toBe(`${hostnameOf(copy.id)}\n`)
        expect((await filesOf(source).get('/root/many/1')).toString()).toBe('1\n')
      } finally {
        await copy.destroy()
        await rm(file, { force: true })
      }
    })
  })
}
