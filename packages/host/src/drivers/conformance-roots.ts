import { randomBytes } from 'node:crypto'
import { readdir, readFile, rm, stat, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { LayerSession } from '../layers/layer-session.ts'
import { filesOf, finish, sh } from './conformance-run.ts'
import type { ConformanceOptions, ConformanceSetup } from './conformance-setup.ts'
import type { Sandbox, SandboxRoot } from './driver.ts'
import { hostnameOf } from './sandbox-id.ts'
import { growDisk, makeScratchDisk } from './scratch-disk.ts'

/** Numbers of setxattr(2) and getxattr(2) on x86-64: not every image has setcap(8). */
const setCapability = `perl -e 'my ($file, $name) = @ARGV; my $value = pack("L<5", 0x02000001, 1 << 13, 0, 0, 0); exit(syscall(188, $file, $name, $value, 20, 0) != 0)' /root/capped security.capability`
const getCapability = `perl -e 'my ($file, $name) = @ARGV; my $value = "\\0" x 64; my $size = syscall(191, $file, $name, $value, 64); print unpack("H*", substr($value, 0, $size)), "\\n"' /root/capped security.capability`

/** Changes of every kind that a layer must keep, over an image of Debian. */
const change = `set -e
  echo kept >/root/kept; chown 1234:4321 /root/kept; ln /root/kept /root/linked
  rm /etc/issue; rm -rf /usr/share/common-licenses; mkdir /usr/share/common-licenses; echo new >/usr/share/common-licenses/new
  cp /bin/sh /root/setuid; chmod 4755 /root/setuid
  cp /bin/sh /root/capped; ${setCapability}
  truncate -s 1G /root/sparse; echo end >>/root/sparse`
const look = `stat -c '%n %u %g %a %h' /root/kept; stat -c '%n %h' /root/linked; test /root/kept -ef /root/linked && echo linked
  ls /etc/issue 2>&1; ls /usr/share/common-licenses; stat -c '%a' /root/setuid; ${getCapability}
  stat -c '%s' /root/sparse; tail -c 4 /root/sparse; test $(stat -c '%b' /root/sparse) -lt 1000 && echo sparse`
const seen = `/root/kept 1234 4321 644 2
/root/linked 2
linked
ls: cannot access '/etc/issue': No such file or directory
new
4755
0100000200200000000000000000000000000000
1073741828
end
sparse
`

/**
 * What a driver promises about roots other than the image's (see {@link SandboxRoot}). Needs a real driver and a set-up with `disksDir`. A driver that does not stack gets no lower disks.
 */
export function describeRootConformance(name: string, setUp: () => Promise<ConformanceSetup>, options: ConformanceOptions = {}) {
  const timeScale = options.timeScale ?? 1

  describe(`${name} driver and other roots`, { timeout: 60_000 * timeScale }, () => {
    let setup: ConformanceSetup
    let count = 0

    beforeAll(async () => {
      setup = await setUp()
    }, 120_000 * timeScale)
    afterAll(() => setup?.dispose(), 60_000 * timeScale)

    const newFile = () => join(setup.disksDir ?? '', `disk-${++count}.img`)
    const newDisk = async (diskGb = 1) => (await makeScratchDisk(newFile(), diskGb)).file
    const rooted = async (root: SandboxRoot): Promise<Sandbox> => {
      const { driver, shape } = setup
      const atOnce = driver.rootAt === 'create'
      const sandbox = await driver.create(driver.warmShape(shape), atOnce ? root : undefined)
      try {
        await sandbox.attach(shape, atOnce ? undefined : root)
        return sandbox
      } catch (error) {
        await sandbox.destroy()
        throw error
      }
    }
    /** Runs a program over a root in a sandbox of its own, and ends that so that all it wrote is on its disk. */
    const runOver = async (root: SandboxRoot, program: string) => {
      const sandbox = await rooted(root)
      try {
        const outcome = await finish(sandbox, sh(program))
        await sandbox.halt()
        return outcome
      } finally {
        await sandbox.destroy()
      }
    }

    it('keeps on an upper disk what one sandbox changed for the next', async () => {
      const upperDisk = await newDisk()
      const first = await runOver({ lowerDisks: [], upperDisk }, change)
      expect([first.stderr, first.exit.code]).toEqual(['', 0])
      expect((await runOver({ lowerDisks: [], upperDisk }, look)).stdout).toBe(seen)
      expect((await runOver({ lowerDisks: [], upperDisk: await newDisk() }, 'ls /root/kept /etc/issue 2>/dev/null')).stdout).toBe('/etc/issue\n')
    })

    it('gives each sandbox an identity of its own, whatever the disk has', async () => {
      const upperDisk = await newDisk()
      const identity = 'cat /etc/hostname /etc/hosts /etc/machine-id; uname -n'
      const { stdout: before } = await runOver({ lowerDisks: [], upperDisk }, identity)
      const sandbox = await rooted({ lowerDisks: [], upperDisk })
      try {
        const { stdout } = await finish(sandbox, sh(identity))
        expect(stdout).toMatch(new RegExp(`^${hostnameOf(sandbox.id)}\\n`))
        expect(stdout.split('\n').at(-2)).toBe(hostnameOf(sandbox.id))
        expect(stdout).toContain(`\t${hostnameOf(sandbox.id)}\n`)
        expect(stdout.match(/^[0-9a-f]{32}$/m)?.[0]).not.toBe(before.match(/^[0-9a-f]{32}$/m)?.[0])
      } finally {
        await sandbox.destroy()
      }
    })

    it('stacks two sandboxes on one lower disk at once, which stays as it is', async (context) => {
      if (!setup.driver.stacks) context.skip('the driver does not stack')
      const base = await newDisk()
      await runOver({ lowerDisks: [], upperDisk: base }, change)
      const uppers = [await newDisk(), await newDisk()]
      const boxes = await Promise.all(uppers.map((upperDisk) => rooted({ lowerDisks: [base], upperDisk })))
      try {
        for (const [index, box] of boxes.entries()) {
          expect((await finish(box, sh(look))).stdout).toBe(seen)
          const changes = `echo ${index} >>/root/kept; rm /root/setuid; rm -r /usr/share/common-licenses; echo back >/etc/issue`
          expect((await finish(box, sh(changes))).exit.code).toBe(0)
        }
        for (const [index, box] of boxes.entries()) {
          expect((await finish(box, sh('cat /root/kept /etc/issue; ls /root/setuid /usr/share/common-licenses 2>/dev/null'))).stdout).toBe(
            `kept\n${index}\nback\n`,
          )
          await box.halt()
        }
      } finally {
        await Promise.all(boxes.map((box) => box.destroy()))
      }
      // No upper disk: what is changed goes with the sandbox.
      const root = { lowerDisks: [base] }
      expect((await runOver(root, `${look}; rm /root/kept`)).stdout).toBe(seen)
      expect((await runOver(root, look)).stdout).toBe(seen)
      // Three layers, and what the middle one has deleted stays deleted.
      const deep = { lowerDisks: [uppers[1] ?? '', base], upperDisk: await newDisk() }
      expect((await runOver(deep, 'cat /root/kept; ls /root/setuid 2>/dev/null')).stdout).toBe('kept\n1\n')
    })

    it('refuses a disk that is missing, is none or is in use, and holds on to nothing', async () => {
      const wrong = newFile()
      await writeFile(wrong, randomBytes(1 << 20))
      await expect(rooted({ lowerDisks: [], upperDisk: wrong })).rejects.toThrow(/disk-\d+\.img/)
      await expect(rooted({ lowerDisks: [], upperDisk: newFile() })).rejects.toThrow(/disk-\d+\.img/)
      if (setup.driver.stacks) {
        const good = await newDisk()
        await expect(rooted({ lowerDisks: [wrong], upperDisk: good })).rejects.toThrow(/disk-\d+\.img/)
        const box = await rooted({ lowerDisks: [], upperDisk: good })
        try {
          await expect(rooted({ lowerDisks: [good], upperDisk: await newDisk() })).rejects.toThrow(/is the upper layer/)
          expect((await finish(box, sh('echo alive'))).stdout).toBe('alive\n')
        } finally {
          await box.destroy()
        }
        expect((await runOver({ lowerDisks: [], upperDisk: good }, 'echo free')).stdout).toBe('free\n')
      }
      for (const file of await loopFiles()) expect(file).not.toContain(wrong)
      await rm(wrong)
    })

    it('runs out of space inside only', async () => {
      const upperDisk = await newDisk(1 / 16)
      const { stderr } = await runOver({ lowerDisks: [], upperDisk }, 'head -c 200000000 /dev/zero >/root/full')
      expect(stderr).toMatch(/no space left/i)
      // A full disk can be had again, and be emptied.
      const empty = 'rm -f /root/full; echo still here >/root/after; cat /root/after'
      const { stdout } = await runOver({ lowerDisks: [], upperDisk }, empty)
      expect(stdout).toBe('still here\n')
      expect((await runOver({ lowerDisks: [], upperDisk }, 'cat /root/after')).stdout).toBe('still here\n')
    })

    it('begins with one folder of an upper disk, when that is all that counts', async () => {
      const root = { lowerDisks: [], upperDisk: await newDisk(), scope: 'workspace' }
      const first = await runOver(
        root,
        `stat -c '%a %u:%g %F' /workspace; echo a >/workspace/a; mkdir -m 1770 /workspace/d; echo b >/root/b; ln /workspace/a /root/linked; rm /etc/issue; echo new >/etc/new; mkdir /new; touch /new/file
        chattr +i /new/file /etc/new 2>/dev/null; chmod 700 /`,
      )
      expect([first.stdout, first.stderr]).toEqual(['755 0:0 directory\n', ''])
      const again = `stat -c %a /; find /workspace -printf '%p %m %n\n' | sort; ls /root/b /etc/new /new /root/linked 2>/dev/null; ls /etc/issue`
      expect((await runOver(root, again)).stdout).toBe('755\n/workspace 755 3\n/workspace/a 644 1\n/workspace/d 1770 2\n/etc/issue\n')
      // What was deleted stays deleted, and the folder is there all the same.
      await runOver(root, 'rm -r /workspace/a /workspace/d; chown 5:6 /workspace')
      expect((await runOver(root, "stat -c '%a %u:%g' /workspace; ls /workspace; rmdir /workspace; ln -s /etc /workspace")).stdout).toBe('755 5:6\n')
      expect((await runOver(root, "stat -c '%a %u:%g %F' /workspace; ls -A /workspace")).stdout).toBe('755 0:0 directory\n')
      // One that the image has is as the image has it, less what was deleted of it.
      const srv = { lowerDisks: [], upperDisk: await newDisk(), scope: 'home' }
      expect((await runOver(srv, 'chmod 700 /home; touch /home/kept /root/b; ls /home')).stdout).toBe('kept\n')
      expect((await runOver(srv, 'stat -c %a /home; ls /home /root/b 2>/dev/null')).stdout).toBe('700\n/home:\nkept\n')
    })

    it('looks at one folder of a layer only, whatever else was written', async () => {
      const root = { lowerDisks: [], upperDisk: await newDisk(), scope: 'workspace' }
      const sandbox = await rooted(root)
      try {
        const { exit } = await finish(sandbox, sh('mkdir /root/many; cd /root/many; seq 2000 | xargs touch; touch /workspace/a'))
        expect(exit.code).toBe(0)
        const session = await sandbox.openLayer('workspace')
        const walked: string[] = []
        for await (const entries of session.walk()) walked.push(...entries.map(({ path }) => path.toString()))
        expect(walked).toEqual(['', 'workspace', 'workspace/a'])
        await finish(sandbox, sh('touch /root/more /workspace/b; rm /workspace/a'))
        const changed: string[] = []
        for await (const changes of session.changes())
          changed.push(...changes.map((change) => ('removed' in change ? `-${change.removed}` : `+${change.present.path}`)))
        expect(changed.filter((path) => path !== '+')).toEqual(['+workspace', '-workspace/a', '+workspace/b'])
        session.close()
        await sandbox.halt()
      } finally {
        await sandbox.destroy()
      }
      expect((await runOver(root, 'ls /workspace /root/many 2>/dev/null')).stdout).toBe('/workspace:\nb\n')
    })

    it('begins with one folder of a disk that is full of other things', async () => {
      const root = { lowerDisks: [], upperDisk: await newDisk(1 / 16), scope: 'workspace' }
      const { stderr } = await runOver(root, 'echo kept >/workspace/kept; head -c 200000000 /dev/zero >/root/full')
      expect(stderr).toMatch(/no space left/i)
      expect((await runOver(root, 'cat /workspace/kept; echo more >/workspace/more; ls /root/full 2>/dev/null; cat /workspace/more')).stdout).toBe(
        'kept\nmore\n',
      )
    })

    it('after halt nothing runs, and the layer has all that was written', async () => {
      const sandbox = await rooted({ lowerDisks: [], upperDisk: await newDisk() })
      let died = false
      void sandbox.died.then(() => {
        died = true
      })
      try {
        const text = randomBytes(300_000).toString('hex')
        await filesOf(sandbox).put('/root/halted', text)
        const exec = sandbox.agent.exec(sh('while :; do echo more >>/root/growing; done'), () => undefined)
        const lost = expect(exec.exit).rejects.toThrow()
        await untilThere(sandbox, '/root/growing')
        await Promise.all([sandbox.halt(), sandbox.halt()])
        await lost
        const session = await sandbox.openLayer()
        expect((await readLayerFile(session, 'root/halted')).toString()).toBe(text)
        const size = (await readLayerFile(session, 'root/growing')).length
        expect((await readLayerFile(session, 'root/growing')).length).toBe(size)
        session.close()
        await expect(sandbox.agent.ping()).rejects.toThrow()
        expect(died).toBe(false)
      } finally {
        await sandbox.destroy()
      }
      await sandbox.died
    })

    it('holds writers between quiesce and resume, and the layer can be read meanwhile', async () => {
      const sandbox = await rooted({ lowerDisks: [], upperDisk: await newDisk() })
      try {
        const exec = sandbox.agent.exec(sh('echo begun >/root/counted; echo ready; while :; do echo more >>/root/counted; done'), () => undefined)
        await untilThere(sandbox, '/root/counted')
        await sandbox.quiesce()
        const session = await sandbox.openLayer()
        const held = (await readLayerFile(session, 'root/counted')).length
        for (let again = 0; again < 3; again++) expect((await readLayerFile(session, 'root/counted')).length).toBe(held)
        session.close()
        await sandbox.resume()
        while ((await filesOf(sandbox).stat('/root/counted')).sizeBytes <= held) await sandbox.agent.ping()
        exec.close()
      } finally {
        await sandbox.destroy()
      }
    })

    it('has the room of a disk that was made larger, with all that was on it', async (context) => {
      if (setup.driver.isolation !== 'container') context.skip('the host does not look into a disk that a guest has written')
      const upperDisk = await newDisk(1 / 16)
      await runOver({ lowerDisks: [], upperDisk }, change)
      await growDisk(upperDisk, 1 / 4)
      expect((await stat(upperDisk)).size).toBe(2 ** 28)
      await growDisk(upperDisk, 1 / 8)
      expect((await stat(upperDisk)).size).toBe(2 ** 28)
      expect((await runOver({ lowerDisks: [], upperDisk }, look)).stdout).toBe(seen)
      const room = 'head -c 150000000 /dev/zero >/root/full && echo fits'
      expect((await runOver({ lowerDisks: [], upperDisk }, room)).stdout).toBe('fits\n')
    })

    // Last: it ends the driver that the others use.
    it('an adopted sandbox goes on over its disk, and its layer can be read again', async (context) => {
      if (setup.reopen === undefined) context.skip('the set-up cannot play a restart')
      const upperDisk = await newDisk()
      const before = await rooted({ lowerDisks: [], upperDisk })
      await before.keep(true)
      await finish(before, sh('echo before >/root/told'))
      await before.detach()
      const next = (await setup.reopen?.()) ?? setup.driver
      const after = await next.adopt(before.id)
      await next.sweep()
      if (after === undefined) throw new Error('the kept sandbox was not adopted')
      try {
        expect((await finish(after, sh('cat /root/told; echo after >>/root/told'))).stdout).toBe('before\n')
        await after.halt()
        const session = await after.openLayer()
        expect((await readLayerFile(session, 'root/told')).toString()).toBe('before\nafter\n')
        session.close()
      } finally {
        await after.destroy()
      }
      // Whole, and nobody has it any more.
      if (setup.driver.isolation === 'container') await growDisk(upperDisk, 2)
      for (const file of await loopFiles()) expect(file).not.toContain(upperDisk)
    })
  })
}

/** Looks until a program has made a file; each look is a round trip. */
async function untilThere(sandbox: Sandbox, path: string) {
  const there = () =>
    filesOf(sandbox)
      .stat(path)
      .then(
        () => true,
        () => false,
      )
  while (!(await there())) await sandbox.agent.ping()
}

async function readLayerFile(session: LayerSession, path: string): Promise<Buffer> {
  const found = new Set<string>()
  for await (const entries of session.walk()) for (const entry of entries) found.add(entry.path.toString())
  expect(found).toContain(path)
  const pieces: Buffer[] = []
  for await (const part of session.read([Buffer.from(path)])) {
    if (part.kind === 'data') pieces.push(Buffer.from(part.bytes))
    else if (part.kind === 'hole') pieces.push(Buffer.alloc(part.lengthBytes))
    else expect(part.kind).toBe('end')
  }
  return Buffer.concat(pieces)
}

/** Files that loop devices of this machine have. */
async function loopFiles(): Promise<string[]> {
  const devices = (await readdir('/sys/block')).filter((name) => name.startsWith('loop'))
  return await Promise.all(devices.map((name) => readFile(`/sys/block/${name}/loop/backing_file`, 'utf8').catch(() => '')))
}
