import { randomBytes } from 'node:crypto'
import { mkdtemp, rm } from 'node:fs/promises'
import type { HostApi, OutputChunk, RunningSandbox, SandboxSpec } from '@mags/protocol'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { canMakeSandboxes, openRealHost, runDirOf } from '../kit/real-host.ts'

/** What the init of a machine says on its console. */
class Console {
  text = ''
  #waiters: { readonly words: string; readonly resolve: () => void }[] = []

  readonly sink = async ({ source, bytes }: OutputChunk): Promise<undefined> => {
    if (source === 'stdout') this.text += Buffer.from(bytes).toString()
    for (const { words, resolve } of this.#waiters) if (this.text.includes(words)) resolve()
  }

  says(words: string): Promise<void> {
    return new Promise((resolve) => {
      this.#waiters.push({ words, resolve })
      if (this.text.includes(words)) resolve()
    })
  }
}

const unit = `[Unit]
Description=Notes each time it is started
[Service]
Type=exec
ExecStartPre=/bin/sh -c 'echo started >> /var/lib/counted'
ExecStart=/bin/sleep infinity
PrivateTmp=yes
ProtectSystem=full
PrivateUsers=yes
[Install]
WantedBy=multi-user.target
`

async function run(running: RunningSandbox, command: string): Promise<string> {
  let text = ''
  const { exitCode } = await running.exec({ command: ['/bin/sh', '-c', command], timeoutMs: 60_000 }, (_source, bytes) => {
    text += Buffer.from(bytes).toString()
  })
  if (exitCode !== 0) text += `[${exitCode}]`
  return text
}

async function* content(text: string) {
  yield Buffer.from(text)
}

/** A program that the end of the machine may take along. */
const order = (running: RunningSandbox, command: string) => run(running, command).catch(() => undefined)

/** The image's own init over real sandboxes. Its tests follow one machine through its life. */
describe.skipIf(!canMakeSandboxes())('a machine that boots its image', { timeout: 240_000 }, () => {
  const held = new AsyncDisposableStack()
  const instance = randomBytes(3).toString('hex')
  const storageId = randomBytes(16).toString('hex')
  let fence = 0
  let dataDir: string
  let host: HostApi
  let running: RunningSandbox
  let shown: Console

  beforeAll(async () => {
    dataDir = await mkdtemp('/var/tmp/mags-boot-')
    held.defer(() => rm(dataDir, { recursive: true, force: true }))
    held.defer(() => rm(runDirOf(instance), { recursive: true, force: true }))
    host = await openRealHost({ instance, dataDir })
    held.defer(() => host.close({ keepPersistent: false }))
    await host.settle()
  }, 120_000)
  afterAll(() => held.disposeAsync(), 60_000)

  const spec = (isolation: 'container' | 'vm'): SandboxSpec => {
    return { image: 'debian-12', isolation, vcpus: 1, memoryMb: 256, diskGb: 2, persistent: true }
  }
  /** The next boot from the same workspace. */
  const boot = async () => {
    const lease = await host.acquire({ ...spec('vm'), workspace: { storageId, fence: ++fence } })
    shown = new Console()
    running = await lease.run({ script: 'echo never run', environment: {}, init: true }, shown.sink)
  }
  const end = async () => {
    const saved = await running.saveWorkspace({ final: true })
    await running.destroy()
    return saved
  }

  it('comes up with all its services', async () => {
    await boot()
    await shown.says('Reached target multi-user.target')
    expect(await run(running, 'systemctl is-system-running --wait; systemctl list-units --failed --no-legend')).toBe('running\n')
    expect(shown.text).not.toContain('never run')
    expect(await run(running, 'ps -o comm= 1; tr "\\0" "\\n" < /proc/1/environ | grep container')).toBe('systemd\ncontainer=mags\n')
  })

  it('has programs and files in the world of its init', async () => {
    const worlds = await run(running, 'for kind in pid mnt; do readlink /proc/1/ns/$kind /proc/self/ns/$kind; done')
    const [pid, ownPid, mnt, ownMnt] = worlds.split('\n')
    expect(worlds).toMatch(/^pid:.*\npid:.*\nmnt:.*\nmnt:.*\n$/)
    expect([ownPid, ownMnt]).toEqual([pid, mnt])
    expect(await run(running, 'systemd-run --wait --quiet mount -t tmpfs tmpfs /mnt')).toBe('')
    await running.files.write('/mnt/file', content('seen by all'))
    expect(await run(running, 'cat /mnt/file; findmnt -no FSTYPE /mnt')).toBe('seen by alltmpfs\n')
    // Nor does anything of the machine below it show.
    expect(await run(running, 'ls /proc | grep -c "^[0-9]*$" | awk "{ print (\\$1 < 20) }"; unshare --user --map-root-user id -u')).toBe('1\n0\n')
  })

  it('runs a service with walls of its own, through sleep and hibernation', async () => {
    await running.files.write('/etc/systemd/system/counted.service', content(unit))
    expect(await run(running, 'systemctl daemon-reload && systemctl enable --quiet --now counted; systemctl is-active counted')).toBe('active\n')
    const pid = await run(running, 'systemctl show -P MainPID counted')
    await running.sleep()
    await running.wake()
    expect(await run(running, 'systemctl is-active counted; systemctl show -P MainPID counted')).toBe(`active\n${pid}`)
    await running.sleep()
    expect(await running.hibernate()).toBe(true)
    await running.wake()
    expect(await run(running, 'systemctl is-active counted; systemctl show -P MainPID counted')).toBe(`active\n${pid}`)
  })

  it('can be saved while it runs', async () => {
    expect(await running.saveWorkspace({ final: false })).toMatchObject({ changed: true })
    expect(await run(running, 'echo more >> /var/lib/counted; systemctl is-active counted')).toBe('active\n')
  })

  it('can be forked, with its services', async () => {
    const { lease } = await running.fork({ ...spec('vm'), persistent: false, workspace: { storageId: randomBytes(16).toString('hex'), fence: 1 } })
    const copy = await lease.run({ script: '', environment: {} }, async () => undefined)
    const services = 'systemctl is-active counted; systemctl show -P MainPID counted; readlink /proc/self/ns/pid /proc/1/ns/pid | uniq | wc -l'
    const [there, here] = [await run(copy, services), await run(running, services)]
    expect(there).toMatch(/^active\n\d+\n1\n$/)
    expect(there).toBe(here)
    await copy.destroy()
  })

  it('is adopted by the next host, and tells that it was powered off', async () => {
    const { sandboxId } = running
    const stdout = Buffer.byteLength(shown.text)
    await host.close({ keepPersistent: true })
    host = await openRealHost({ instance, dataDir })
    const adopted = await host.adopt(sandboxId, { stdout, stderr: 0 }, shown.sink)
    await host.settle()
    if (adopted === undefined) throw new Error('it is gone')
    running = adopted
    await order(running, 'poweroff')
    expect(await running.exited).toMatchObject({ kind: 'exited', exitCode: 0, halted: 'powered-off' })
    expect(shown.text).toContain('Reached target poweroff.target')
  })

  it('is an ordinary machine then, whose files can be had and saved', async () => {
    expect(await run(running, 'cat /var/lib/counted; ps -o comm= 1')).toBe('started\nmore\ninit\n')
    expect(await running.files.stat('/etc/systemd/system/counted.service')).toMatchObject({ type: 'file' })
    expect(await end()).toMatchObject({ changed: true })
  })

  it('has its services running after the next start, and tells that it was rebooted', async () => {
    await boot()
    await shown.says('Reached target multi-user.target')
    expect(await run(running, 'systemctl is-active counted; cat /var/lib/counted')).toBe('active\nstarted\nmore\nstarted\n')
    await order(running, 'reboot')
    expect(await running.exited).toMatchObject({ kind: 'exited', exitCode: 0, halted: 'rebooted' })
    const script = '#!/bin/sh\\necho "process $$ in $container"\\nexit 3\\n'
    expect(await run(running, `rm /sbin/init; printf '${script}' > /sbin/init; chmod 755 /sbin/init`)).toBe('')
    await end()
  })

  it('has another init when its root has; one that just ends has not halted', async () => {
    await boot()
    expect(await running.exited).toMatchObject({ kind: 'exited', exitCode: 3 })
    expect(await running.exited).not.toHaveProperty('halted')
    expect(shown.text).toBe('process 1 in mags\r\n')
    await run(running, "printf '#!/bin/sh\\necho ready; while :; do sleep 1; done\\n' > /sbin/init")
    await end()
  })

  it('tells when its init was killed', async () => {
    await boot()
    await shown.says('ready')
    // From inside the first process of a namespace cannot be ended.
    expect(await run(running, 'kill -9 1; kill -INT 1; echo still there')).toBe('still there\n')
    await running.signal(9)
    expect(await running.exited).toMatchObject({ kind: 'signalled', exitCode: 137 })
    expect(await running.exited).not.toHaveProperty('halted')
    await run(running, 'rm /sbin/init')
    await end()
  })

  it('is refused without an init, and in a container', async () => {
    await expect(boot()).rejects.toMatchObject({ code: 'not_available', message: expect.stringContaining('no /sbin/init') as string })
    const lease = await host.acquire(spec('container'))
    await expect(lease.run({ script: '', environment: {}, init: true }, async () => undefined)).rejects.toMatchObject({
      code: 'not_available',
      message: expect.stringContaining('containers') as string,
    })
    expect(host.poolStatus().busy).toBe(0)
  })
})
