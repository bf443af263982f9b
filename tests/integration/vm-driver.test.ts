import { spawn } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { mkdtemp, readdir, readFile, rename, rm, stat, symlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { ImageCatalogue, MounterClient, openCgroupTree, openNetwork, openVmDriver } from '@mags/host'
import { pino } from 'pino'
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest'
import { type ConformanceSetup, describeDriverConformance } from '../../packages/host/src/drivers/conformance.ts'
import type { Sandbox, SandboxDriver } from '../../packages/host/src/drivers/driver.ts'
import { identifyProcess } from '../../packages/host/src/recover/process-identity.ts'
import { describeLane } from '../kit/describe-lane.ts'
import { canTest, notRoot } from '../kit/require.ts'

/** Real machines: needs root, QEMU, the guest kernel, the image and the native programs. MAGS_REQUIRE_VM=1 turns a skip into a failure. */
const systemDir = process.env.MAGS_SYSTEM_DIR ?? '/var/lib/mags'
const native = fileURLToPath(new URL('../../native/build/', import.meta.url))
const shape = { image: 'debian-12', vcpus: 1, memoryMb: 256, diskGb: 2 }

const missing = () =>
  notRoot ??
  [join(systemDir, 'kernels/current/vmlinux'), join(systemDir, 'images', shape.image, 'current/root.erofs'), join(native, 'agent'), join(native, 'mounter')]
    .filter((path) => !existsSync(path))
    .map((path) => `there is no ${path}; \`./mags setup\` makes it`)[0]

const able = canTest('MAGS_REQUIRE_VM', missing())

/** Everything of one daemon and its successor; templates are shared by all tests of this file. */
async function openGround(cacheDir: string) {
  await using undo = new AsyncDisposableStack()
  const instance = randomBytes(3).toString('hex')
  const logger = pino({ level: process.env.MAGS_TEST_LOG ?? 'silent' })
  const dir = await mkdtemp(join(tmpdir(), 'mags-vm-'))
  undo.defer(() => rm(dir, { recursive: true }))
  const vmDir = join(dir, 'vm')
  const mounter = await MounterClient.start({ binary: join(native, 'mounter'), logFile: join(dir, 'mounter.log') })
  undo.defer(() => mounter.close())
  const cgroups = await openCgroupTree()
  undo.defer(() => cgroups.remove(`/mags/${instance}`))
  const images = await ImageCatalogue.open(join(systemDir, 'images'))
  const openDaemon = async () => {
    const network = await openNetwork({ instance, runDir: dir, logger })
    const driver = await openVmDriver({
      kernelDir: join(systemDir, 'kernels/current'),
      agentPath: join(native, 'agent'),
      cacheDir,
      vmDir,
      images,
      defaultShape: shape,
      sealer: mounter,
      taps: network,
      cgroups,
      cgroupParent: `/mags/${instance}/vm`,
      logger,
    })
    return { network, driver }
  }
  let daemon = await openDaemon()
  undo.defer(async () => {
    await daemon.driver.close()
    await daemon.network.close({ keep: false })
  })
  const held = undo.move()
  return {
    driver: daemon.driver,
    vmDir,
    reopen: async (): Promise<SandboxDriver> => {
      await daemon.driver.close()
      await daemon.network.close({ keep: true })
      daemon = await openDaemon()
      return daemon.driver
    },
    dispose: async () => {
      await held.disposeAsync()
      expect(machinesIn(vmDir)).toEqual([])
    },
  }
}

/** Process ids of the QEMUs whose root folder is below a folder. */
function machinesIn(vmDir: string): number[] {
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .filter((pid) => {
      try {
        return readFileSync(`/proc/${pid}/cmdline`, 'utf8').includes(`-chroot\0${vmDir}`)
      } catch {
        return false
      }
    })
    .map(Number)
}

/** User and system time of a process, fields 14 and 15 of proc_pid_stat(5). */
async function processorTicks(pid: number): Promise<bigint> {
  const text = await readFile(`/proc/${pid}/stat`, 'utf8')
  const fields = text.slice(text.lastIndexOf(')') + 2).split(' ')
  return BigInt(fields[11] ?? 0) + BigInt(fields[12] ?? 0)
}

async function processOf(vmDir: string, sandbox: Sandbox): Promise<number> {
  const record = JSON.parse(await readFile(join(vmDir, sandbox.id, 'record.json'), 'utf8')) as { process: { pid: number } }
  return record.process.pid
}

/** Runs a script to its end; what it wrote to standard output. */
async function output(sandbox: Sandbox, script: string): Promise<string> {
  let text = ''
  const exec = sandbox.agent.exec({ argv: ['/bin/sh', '-c', script], env: { PATH: '/usr/sbin:/usr/bin:/sbin:/bin' } }, (stream, _offset, bytes) => {
    if (stream === 'stdout') text += bytes.toString()
    return undefined
  })
  await exec.exit
  exec.close()
  return text
}

describe.skipIf(!able)('vm', () => {
  let cacheDir: string
  beforeAll(async () => {
    cacheDir = await mkdtemp(join(tmpdir(), 'mags-vm-cache-'))
    // The template that all want.
    const ground = await openGround(cacheDir)
    await (await ground.driver.create(shape)).destroy()
    await ground.dispose()
  }, 240_000)
  afterAll(() => rm(cacheDir, { recursive: true, force: true }))

  describeLane('what every driver promises', () => {
    describeDriverConformance(
      'vm',
      async (): Promise<ConformanceSetup> => {
        const ground = await openGround(cacheDir)
        return {
          ...ground,
          shape,
          real: true,
          processorTime: async (sandbox) => processorTicks(await processOf(ground.vmDir, sandbox)),
          gone: async (sandbox) => expect(machinesIn(join(ground.vmDir, sandbox.id))).toEqual([]),
          kill: async (sandbox) => void process.kill(await processOf(ground.vmDir, sandbox), 'SIGKILL'),
        }
      },
      { timeScale: 4 },
    )
  })

  describeLane('what machines do besides', () => {
    it('ends a template that is being made when the daemon ends, with all that was begun of it', async () => {
      const ground = await openGround(cacheDir)
      const before = (await readdir(join(cacheDir, 'templates'))).toSorted()
      const making = Promise.allSettled([ground.driver.prepare?.({ ...shape, memoryMb: 160 }), ground.driver.create({ ...shape, memoryMb: 176 })])
      await vi.waitFor(() => expect(machinesIn(ground.vmDir)).toHaveLength(2), { timeout: 30_000 })
      await ground.dispose()
      expect((await making).map(({ status }) => status)).toEqual(['rejected', 'rejected'])
      expect((await readdir(join(cacheDir, 'templates'))).toSorted()).toEqual(before)
    }, 60_000)

    describe('clones of one template', { timeout: 120_000 }, () => {
      let ground: Awaited<ReturnType<typeof openGround>>
      let one: Sandbox
      let two: Sandbox
      beforeAll(async () => {
        ground = await openGround(cacheDir)
        ;[one, two] = await Promise.all([ground.driver.create(shape), ground.driver.create(shape)])
        await Promise.all([one.attach(shape), two.attach(shape)])
      })
      afterAll(async () => {
        await Promise.all([one?.destroy(), two?.destroy()])
        await ground?.dispose()
      })

      it('differ in randomness, ids, addresses and names', async () => {
        const facts = {
          random: 'head -c 32 /dev/urandom | od -An -tx1',
          uuid: 'cat /proc/sys/kernel/random/uuid',
          bootId: 'cat /proc/sys/kernel/random/boot_id',
          machineId: 'cat /etc/machine-id',
          hostname: 'cat /proc/sys/kernel/hostname /etc/hostname',
          mac: 'cat /sys/class/net/eth0/address',
          address: 'cat /etc/hosts',
        }
        for (const [fact, script] of Object.entries(facts)) {
          const [first, second] = await Promise.all([output(one, script), output(two, script)])
          expect(first, fact).not.toBe('')
          expect(first, fact).not.toBe(second)
        }
      })

      it('have the right time, also after they slept', async () => {
        const offMs = async () => Math.abs(Number(await output(one, 'date +%s%3N')) - Date.now())
        expect(await offMs()).toBeLessThan(2_000)
        await one.freeze()
        await new Promise((resolve) => setTimeout(resolve, 3_000))
        await one.thaw()
        expect(await offMs()).toBeLessThan(2_000)
      })

      it('run under users of their own, without rights, in a root folder of their own', async () => {
        const status = await Promise.all([one, two].map(async (sandbox) => readFile(`/proc/${await processOf(ground.vmDir, sandbox)}/status`, 'utf8')))
        const [first, second] = status.map((text) => /^Uid:\s+(\d+)\s+\1\s+\1\s+\1$/m.exec(text)?.[1])
        expect(Number(first)).toBeGreaterThan(1_000_000_000)
        expect(Number(second)).toBeGreaterThan(1_000_000_000)
        expect(first).not.toBe(second)
        for (const text of status) expect(text).toMatch(/^CapEff:\s+0+$[\s\S]*^NoNewPrivs:\s+1$[\s\S]*^Seccomp:\s+2$/m)
      })

      it('gets a disk of another size when a job asks for it', async () => {
        const big = await ground.driver.create(ground.driver.warmShape({ ...shape, diskGb: 5 }))
        try {
          await big.attach({ ...shape, diskGb: 5 })
          const kilobytes = Number(await output(big, 'df -k --output=size / | tail -n 1'))
          expect(kilobytes).toBeGreaterThan(4.5 * 2 ** 20)
          expect(await output(big, 'cat /etc/hostname; echo data > /root/file; cat /root/file')).toBe(`mags-${big.id.slice(0, 8)}\ndata\n`)
        } finally {
          await big.destroy()
        }
      })

      it('are made from a new template when the old one turns out to be damaged', async () => {
        const small = { ...shape, memoryMb: 192 }
        const before = new Set(await readdir(join(cacheDir, 'templates')))
        await (await ground.driver.create(small)).destroy()
        const [made] = (await readdir(join(cacheDir, 'templates'))).filter((name) => !before.has(name))
        const stateFile = join(cacheDir, 'templates', `${made}`, 'state')
        await writeFile(stateFile, Buffer.alloc((await stat(stateFile)).size, 0xff))
        await expect(ground.driver.create(small)).rejects.toThrow(/could not be restored from its template/)
        const sandbox = await ground.driver.create(small)
        try {
          await sandbox.attach(small)
          expect(await output(sandbox, 'echo alive')).toBe('alive\n')
        } finally {
          await sandbox.destroy()
        }
      })

      it('tells why a machine is gone: the words of its kernel', async () => {
        const doomed = await ground.driver.create(shape)
        await doomed.attach(shape)
        const exec = doomed.agent.exec({ argv: ['/bin/sh', '-c', 'echo c > /proc/sysrq-trigger'], env: {} }, () => undefined)
        exec.exit.catch(() => undefined)
        exec.eof.catch(() => undefined)
        exec.pid.catch(() => undefined)
        expect((await doomed.died).reason).toMatch(/the guest (shut down|panicked)[\s\S]*sysrq/i)
        await doomed.destroy()
        expect(await readdir(ground.vmDir)).not.toContain(doomed.id)
      })
    })

    describe('a hibernated machine', { timeout: 120_000 }, () => {
      let ground: Awaited<ReturnType<typeof openGround>>
      beforeAll(async () => {
        ground = await openGround(cacheDir)
      })
      afterAll(() => ground?.dispose())

      const sleeping = async () => {
        const sandbox = await ground.driver.create(shape)
        await sandbox.attach(shape)
        await output(sandbox, 'echo kept > /root/kept; echo in memory > /run/kept')
        await sandbox.freeze()
        return sandbox
      }
      const kept = (sandbox: Sandbox) => output(sandbox, 'cat /root/kept /run/kept')

      it('is one that still sleeps when the disk is full', async () => {
        const sandbox = await sleeping()
        try {
          await symlink('/dev/full', join(ground.vmDir, sandbox.id, 'memory.part'))
          await expect(sandbox.hibernate?.()).rejects.toMatchObject({ code: 'sandbox_failed', message: expect.stringContaining('the disk is full') as string })
          expect(sandbox.hibernated).toBe(false)
          expect(await readdir(join(ground.vmDir, sandbox.id))).not.toContain('memory.part')
          await sandbox.thaw()
          expect(await kept(sandbox)).toBe('kept\nin memory\n')
          await sandbox.freeze()
          await sandbox.hibernate?.()
          await sandbox.thaw()
          expect(await kept(sandbox)).toBe('kept\nin memory\n')
        } finally {
          await sandbox.destroy()
        }
      })

      it('can be woken another time when that failed, and says what QEMU said', async () => {
        const sandbox = await sleeping()
        try {
          await sandbox.hibernate?.()
          const file = join(ground.vmDir, sandbox.id, 'memory')
          await rename(file, `${file}.aside`)
          await expect(sandbox.thaw()).rejects.toMatchObject({ code: 'sandbox_failed', message: expect.stringContaining('ENOENT') as string })
          await writeFile(file, 'no memory of a machine')
          await expect(sandbox.thaw()).rejects.toMatchObject({ code: 'sandbox_failed', message: expect.stringContaining('Not a migration stream') as string })
          expect(machinesIn(join(ground.vmDir, sandbox.id))).toEqual([])
          await rename(`${file}.aside`, file)
          await sandbox.thaw()
          expect(await kept(sandbox)).toBe('kept\nin memory\n')
          expect(await readdir(join(ground.vmDir, sandbox.id))).not.toContain('memory')
        } finally {
          await sandbox.destroy()
        }
      })

      it('can be destroyed in the middle of falling asleep, waking and being copied', async () => {
        const goings = [
          async (sandbox: Sandbox) => sandbox.hibernate?.(),
          async (sandbox: Sandbox) => {
            await sandbox.hibernate?.()
            return sandbox.thaw()
          },
          async (sandbox: Sandbox) => void (await ground.driver.fork?.(sandbox))?.destroy(),
        ]
        for (const going of goings) {
          for (const delayMs of [0, 30, 80]) {
            const sandbox = await sleeping()
            const gone = going(sandbox).catch(() => undefined)
            await delay(delayMs)
            await sandbox.destroy()
            await gone
            await sandbox.died
            expect(machinesIn(join(ground.vmDir, sandbox.id))).toEqual([])
            expect(await readdir(ground.vmDir)).not.toContain(sandbox.id)
          }
        }
      })

      it('counts as its file says when the last daemon ended before its QEMU had', async () => {
        const sandbox = await sleeping()
        await sandbox.keep(true)
        await sandbox.hibernate?.()
        await sandbox.detach()
        // Stands for the QEMU that the daemon was about to end.
        const stale = spawn('sleep', ['1000'])
        const ended = once(stale, 'exit')
        const record = join(ground.vmDir, sandbox.id, 'record.json')
        const process = await identifyProcess(stale.pid ?? 0)
        await writeFile(record, JSON.stringify({ ...JSON.parse(await readFile(record, 'utf8')), process }))
        const next = await ground.reopen()
        const again = await next.adopt(sandbox.id)
        if (again === undefined) throw new Error('it was not adopted')
        try {
          await ended
          expect(again.hibernated).toBe(true)
          await again.thaw()
          expect(await kept(again)).toBe('kept\nin memory\n')
        } finally {
          await again.destroy()
        }
      })
    })
  })
})
