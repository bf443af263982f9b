import { randomBytes } from 'node:crypto'
import { mkdtemp, rm } from 'node:fs/promises'
import type { HostApi, RunningSandbox, SandboxSpec, WorkspaceHold } from '@mags/protocol'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { canMakeSandboxes, openRealHost, runDirOf } from '../kit/real-host.ts'

type Wall = 'container' | 'vm'

async function sh(running: RunningSandbox, command: string): Promise<string> {
  let text = ''
  await running.exec({ command: ['/bin/sh', '-c', command], timeoutMs: 120_000 }, (_source, bytes) => {
    text += Buffer.from(bytes).toString()
  })
  return text
}

/** Workspaces of which only /workspace is kept, over real sandboxes of both kinds and an end of the daemon in between. */
describe.skipIf(!canMakeSandboxes())('a workspace of which one folder is kept', { timeout: 180_000 }, () => {
  const held = new AsyncDisposableStack()
  const instance = randomBytes(3).toString('hex')
  let dataDir: string
  let host: HostApi
  let fence = 0

  const open = () => openRealHost({ instance, dataDir })
  beforeAll(async () => {
    dataDir = await mkdtemp('/var/tmp/mags-scope-')
    held.defer(() => rm(dataDir, { recursive: true, force: true }))
    held.defer(() => rm(runDirOf(instance), { recursive: true, force: true }))
    host = await open()
    held.defer(() => host.close({ keepPersistent: false }))
    await host.settle()
  }, 120_000)
  afterAll(() => held.disposeAsync(), 60_000)

  const newHold = (): WorkspaceHold => ({ storageId: randomBytes(16).toString('hex'), fence: ++fence, scope: '/workspace' })
  const again = (hold: WorkspaceHold): WorkspaceHold => ({ ...hold, fence: ++fence })
  const start = async (isolation: Wall, more: Partial<SandboxSpec>) => {
    const lease = await host.acquire({ image: 'debian-12', isolation, vcpus: 1, memoryMb: 256, diskGb: 2, persistent: false, ...more })
    return await lease.run({ script: 'sleep infinity', environment: {} }, async () => undefined)
  }
  const end = async (running: RunningSandbox) => {
    await running.destroy()
    await running.gone
  }
  const stored = async (storageId: string, to: number) =>
    (await host.workspaces.diff(storageId, { from: 0, to, content: false, limit: 1000 })).differences.map(({ path }) => path)

  for (const isolation of ['container', 'vm'] as const) {
    it(`${isolation}: every run begins with it and nothing else of the runs before`, async () => {
      const hold = newHold()
      const first = await start(isolation, { workspace: hold })
      expect(await sh(first, "stat -c '%a %U %F' /workspace; ls -A /workspace")).toBe('755 root directory\n')
      await sh(
        first,
        'echo a >/workspace/a; echo gone >/workspace/gone; ln -s a /workspace/link; echo b >/root/b; echo c >/etc/installed; rm /etc/issue; chmod 711 /',
      )
      // A save while it runs has no more than the last one.
      expect(await first.saveWorkspace({ final: false })).toMatchObject({ changed: true, version: { version: 1, entryCount: 5 } })
      expect(await stored(hold.storageId, 1)).toEqual(['/', '/workspace', '/workspace/a', '/workspace/gone', '/workspace/link'])
      await sh(first, 'rm /workspace/gone; echo more >/root/more')
      expect(await first.saveWorkspace({ final: true })).toMatchObject({ version: { version: 2, entryCount: 4 } })
      await end(first)

      const second = await start(isolation, { workspace: again(hold) })
      const look = "cat /workspace/link; ls /workspace; ls /root/b /root/more /etc/installed 2>/dev/null; ls /etc/issue; stat -c '%a' /"
      expect(await sh(second, look)).toBe('a\na\nlink\n/etc/issue\n755\n')
      const many = isolation === 'container' ? 20_000 : 1_000
      await sh(
        second,
        `mkdir /root/many; cd /root/many; seq ${many} | xargs touch; head -c 50000000 /dev/urandom >/var/large; chattr +i /var/large 2>/dev/null; true`,
      )
      expect(await second.saveWorkspace({ final: true })).toMatchObject({ changed: false, version: { version: 2 } })
      await end(second)

      const third = await start(isolation, { workspace: again(hold) })
      expect(await sh(third, `ls /root/many /var/large 2>/dev/null; ${look}`)).toBe('a\na\nlink\n/etc/issue\n755\n')
      // Its room is free again soon, behind the job's back.
      while (Number(await sh(third, 'df -k --output=used / | tail -n 1')) > 40_000) await sh(third, 'sync')
      await sh(third, 'rm -r /workspace')
      await third.saveWorkspace({ final: true })
      await end(third)
      // What is deleted stays so, the folder is there nevertheless.
      const fourth = await start(isolation, { workspace: again(hold) })
      expect(await sh(fourth, 'ls -dl /workspace | cut -c1-10; ls -A /workspace')).toBe('drwxr-xr-x\n')
      await end(fourth)
    })

    it(`${isolation}: it is forked, restored and a base as any other, without the rest`, async () => {
      const hold = newHold()
      const first = await start(isolation, { workspace: hold })
      await sh(first, 'echo 1 >/workspace/a; echo b >/root/b')
      await first.saveWorkspace({ final: false })
      await sh(first, 'echo 2 >/workspace/a')
      await first.saveWorkspace({ final: true })
      await end(first)
      const copy = newHold()
      await host.workspaces.fork({ storageId: hold.storageId }, copy)
      const look = 'cat /workspace/a; ls /root/b 2>/dev/null'
      const forked = await start(isolation, { workspace: again(copy) })
      expect(await sh(forked, look)).toBe('2\n')
      await sh(forked, 'echo 3 >/workspace/a; echo c >/root/c')
      await forked.saveWorkspace({ final: true })
      await end(forked)
      expect(await stored(copy.storageId, 2)).toEqual(['/', '/workspace', '/workspace/a'])
      await host.workspaces.restore(again(hold), 1)
      const restored = await start(isolation, { workspace: again(hold) })
      expect(await sh(restored, look)).toBe('1\n')
      await restored.saveWorkspace({ final: true })
      await end(restored)
      const based = await start(isolation, { base: { storageId: copy.storageId } })
      expect(await sh(based, `${look}; ls /root/c 2>/dev/null`)).toBe('3\n')
      await end(based)
      const onward = await start(isolation, { workspace: again(copy) })
      expect(await sh(onward, `${look}; ls /root/c 2>/dev/null`)).toBe('3\n')
      await end(onward)
    })
  }

  it('is saved from sandboxes that outlive the daemon, with nothing else', async () => {
    const holds = { container: newHold(), vm: newHold() }
    const sandboxes: string[] = []
    for (const isolation of ['container', 'vm'] as const) {
      const running = await start(isolation, { workspace: holds[isolation], persistent: true })
      await sh(running, 'echo a >/workspace/a; echo b >/root/b')
      sandboxes.push(running.sandboxId)
    }
    await host.close({ keepPersistent: true })
    host = await open()
    const adopted = await Promise.all(sandboxes.map((id) => host.adopt(id, { stdout: 0, stderr: 0 }, async () => undefined)))
    await host.settle()
    for (const [index, isolation] of (['container', 'vm'] as const).entries()) {
      const running = adopted[index]
      if (running === undefined) throw new Error('it was not adopted')
      expect(await sh(running, 'echo c >/workspace/c; cat /root/b')).toBe('b\n')
      expect(await running.saveWorkspace({ final: true })).toMatchObject({ changed: true })
      await end(running)
      expect(await stored(holds[isolation].storageId, 1)).toEqual(['/', '/workspace', '/workspace/a', '/workspace/c'])
    }
  })

  it('goes from one kind of wall to the other', async () => {
    const hold = newHold()
    for (const [index, isolation] of (['container', 'vm', 'container'] as const).entries()) {
      const running = await start(isolation, { workspace: again(hold) })
      expect(await sh(running, 'cat /workspace/log; ls /root/elsewhere')).toBe(
        `${index === 0 ? 'cat: /workspace/log: No such file or directory\n' : 'x\n'.repeat(index)}ls: cannot access '/root/elsewhere': No such file or directory\n`,
      )
      await sh(running, 'echo x >>/workspace/log; touch /root/elsewhere')
      await running.saveWorkspace({ final: true })
      await end(running)
    }
  })

  it('is saved with nothing else when its sandbox was lost with what it had not saved, also by the next daemon', async () => {
    const hold = newHold()
    const running = await start('container', { workspace: hold })
    await sh(running, 'echo a >/workspace/a; echo b >/root/b')
    await end(running)
    await host.close({ keepPersistent: false })
    host = await open()
    await host.settle()
    expect(await host.workspaces.left()).toContain(hold.storageId)
    // Who asks need not know which folder it is.
    const { storageId } = hold
    expect(await host.workspaces.saveLeft({ storageId, fence: ++fence })).toMatchObject({ changed: true, version: { version: 1 } })
    expect(await stored(storageId, 1)).toEqual(['/', '/workspace', '/workspace/a'])
    const next = await start('container', { workspace: again(hold) })
    expect(await sh(next, 'cat /workspace/a; ls /root/b 2>/dev/null')).toBe('a\n')
    await end(next)
  })
})
