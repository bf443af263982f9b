import { randomBytes } from 'node:crypto'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest'
import { type DaemonPlace, makePlace, startDaemon, type TestDaemon } from '../kit/daemon.ts'
import { describeLane } from '../kit/describe-lane.ts'
import {
  churn,
  deepTree,
  digestTree,
  emptyFiles,
  endChurn,
  hardNames,
  holedFile,
  linkFarm,
  manyAttributes,
  setAttribute,
  showAttributes,
  sparseFile,
} from '../kit/hostile-tree.ts'
import { leftOf } from '../kit/leaks.ts'
import { canTest, notRoot } from '../kit/require.ts'
import { isStored } from '../kit/stored-bytes.ts'
import { type ApiFailure, WorkspaceClient } from '../kit/workspace-client.ts'

const walls = ['container', 'vm'] as const
/** All sizes, also behind both walls, with MAGS_LONG=1. */
const long = process.env.MAGS_LONG === '1'
/** Where the guest's disk is, and mounts it a second time, past the overlay. */
const mountDisk = 'for b in /sys/block/vd*; do [ "$(cat $b/serial)" = ws ] && d=/dev/$(basename $b); done; mkdir -p /run/raw && mount -t ext4 $d /run/raw'
/** Stops every process that the agent forks before it can do anything. */
const stopReaders = `cat > /run/stop.pl <<'PERL'
sub comm { open(my $f, "<", "/proc/$_[0]/comm") or return ""; my $c = <$f>; $c // "" }
my $agent = comm(1);
open(my $ready, ">", "/run/stopping"); close $ready;
while (1) { for my $p (grep { /^[0-9]+$/ && $_ > 1 } map { s#/proc/##r } glob "/proc/[0-9]*") { kill "STOP", $p if comm($p) eq $agent } select undef, undef, undef, 0.001 }
PERL
setsid perl /run/stop.pl > /dev/null 2>&1 < /dev/null &
until [ -e /run/stopping ]; do sleep 0.1; done`

const isAble = (isolation: (typeof walls)[number]) => canTest(isolation === 'container' ? 'MAGS_REQUIRE_CONTAINER' : 'MAGS_REQUIRE_VM', notRoot)

/** A daemon of its own for the tests of one `describe`, and what they do with it. */
function useDaemon(environment: Readonly<Record<string, string>>) {
  let place: DaemonPlace & AsyncDisposable
  let daemon: TestDaemon
  let client: WorkspaceClient

  beforeAll(async () => {
    place = await makePlace()
    daemon = await startDaemon({ MAGS_POOL_MIN: '1', ...environment }, place)
    client = new WorkspaceClient(daemon)
  }, 240_000)

  afterAll(async () => {
    await daemon.stop()
    const left = leftOf(daemon)
    await place[Symbol.asyncDispose]()
    expect(left).toEqual([])
  }, 60_000)

  /** Runs it again with everything read back from the store: restoring drops what this machine has. */
  const runRestored = async (workspace: string, script: string) => {
    const { versions } = await client.call<{ versions: { version: number }[] }>('GET', `mags-workspaces/${workspace}/versions`)
    await client.call('POST', `mags-workspaces/${workspace}/restore`, { version: versions[0]?.version })
    return await client.run(script, { workspace_id: workspace })
  }

  /** What the first job printed at its end the second prints, too: with its own disk, and with one that was read from the store. */
  const expectKept = async (workspace: string, make: string, show: string) => {
    const made = await client.run(`set -e; ${make}; ${show}`, { workspace_id: workspace })
    expect(made).toMatchObject({ status: 'completed', error: null })
    expect(made.stdout).not.toBe('')
    expect(await client.run(show, { workspace_id: workspace })).toMatchObject({ status: 'completed', error: null, stdout: made.stdout })
    expect(await runRestored(workspace, show)).toMatchObject({ status: 'completed', error: null, stdout: made.stdout })
    return made
  }

  return {
    runRestored,
    expectKept,
    daemon: () => daemon,
    dataDir: () => place.dataDir,
    client: () => client,
    systemRows: async (id: string) => (await client.mags.logs(id, { source: 'system', limit: 1000 })).logs.map(({ message }) => message),
  }
}

function testHarm(isolation: (typeof walls)[number]) {
  const inContainer = isolation === 'container'
  describe.runIf(isAble(isolation))(`a job in a ${isolation} that means harm to its workspace`, () => {
    const marker = randomBytes(64).toString('base64')
    const ground = useDaemon({ MAGS_ISOLATION: isolation, MAGS_MARKER: marker })
    const { runRestored, expectKept, systemRows } = ground
    let client: WorkspaceClient
    beforeAll(() => {
      client = ground.client()
    })

    it('keeps links as links, and nothing that they point at', async () => {
      const folder = await mkdtemp(join(tmpdir(), 'mags-secret-'))
      try {
        const [secret, known] = [randomBytes(256), randomBytes(256)]
        await writeFile(join(folder, 'secret'), secret)
        const hex = known.toString('hex')
        const show =
          'cd /root; find . -type l -printf "%p %l\\n" | sort; for l in a b c/secret e f g; do cat $l > /dev/null 2>&1 && echo "$l is readable"; done; true'
        const made = await expectKept(
          'links',
          `cd /root; perl -e 'print pack("H*", "${hex}")' > known; ln -s ${folder}/secret a; ln -s ${'../'.repeat(40)}${folder.slice(1)}/secret b; ln -s ${folder} c
ln -s /proc/1/environ d; ln -s /proc/1/root${folder}/secret e; ln -s /proc/self/root/../..${folder}/secret f; ln -s g g; ln /proc/1/environ h 2>/dev/null || true
ln -s /proc/${ground.daemon().pid}/environ i; mkdir j; rmdir j; ln -s ../.. j; ln -s /etc/shadow k`,
          show,
        )
        expect(made.stdout).not.toContain('readable')
        expect(made.stdout.split('\n').filter((line) => line.startsWith('./'))).toHaveLength(10)
        expect(await isStored(ground.dataDir(), known)).toBe(true)
        expect(await isStored(ground.dataDir(), secret)).toBe(false)
        expect(await isStored(ground.dataDir(), Buffer.from(marker))).toBe(false)
      } finally {
        await rm(folder, { recursive: true })
      }
    }, 300_000)

    it('keeps names and trees that are hard to handle', async () => {
      await expectKept('names', `${hardNames}; ${deepTree(500, 3)}; mv /root/deep /root/deep500; ${deepTree(16, 253)}`, digestTree)
    }, 300_000)

    it('refuses a path that is too long, with words, and saves again once it is gone', async () => {
      await client.run('echo first > /root/first', { workspace_id: 'long' })
      const refused = await client.run(`echo second > /root/second; ${deepTree(40, 200)}`, { workspace_id: 'long' })
      expect(refused).toMatchObject({ status: 'error', version: 1 })
      expect(refused.error).toContain('a path of a layer may have 4,095 bytes')
      expect(refused.error).toContain('root/deep/xxx')
      expect(refused.error?.length).toBeLessThan(6_000)
      const cured = await client.run('rm -r /root/deep; cat /root/first /root/second', { workspace_id: 'long' })
      expect(cured).toMatchObject({ status: 'completed', error: null, stdout: 'first\nsecond\n', version: 2 })
      expect(await runRestored('long', 'cat /root/first /root/second')).toMatchObject({ status: 'completed', stdout: 'first\nsecond\n' })
    }, 300_000)

    // In a virtual machine ten times as long, and no other code.
    const names = long || inContainer ? 10_000 : 2_000
    it(`keeps ${names} names of one file`, async () => {
      await expectKept('farm', linkFarm(names), digestTree)
    }, 300_000)

    it('keeps a file of terabytes that holds nothing but its end', async () => {
      const show = 'stat -c %s /root/sparse; echo $(tail -c 3 /root/sparse); du -k /root/sparse | cut -f1'
      const made = await expectKept('sparse', sparseFile(10 * 2 ** 40), show)
      expect(made.stdout).toContain(`${10 * 2 ** 40}\nend`)
      const { versions } = await client.call<{ versions: { uploaded_bytes: number }[] }>('GET', 'mags-workspaces/sparse/versions')
      expect(Math.max(...versions.map(({ uploaded_bytes: bytes }) => bytes))).toBeLessThan(1 << 20)
    }, 300_000)

    it('keeps attributes of users, and lets nobody forge those of layers', async () => {
      const make = `echo x > /root/x; ${manyAttributes('/root/x', 15)}`
      const made = await expectKept('attributes', make, showAttributes('/root/x'))
      expect(Number(made.stdout.split(' ')[0])).toBeGreaterThan(0)
      const forge = ['opaque', 'redirect', 'metacopy'].map((name) => setAttribute('/root/x', `trusted.overlay.${name}`, 'y')).join('; ')
      const forged = await client.run(`mkdir /root/dir; ${forge}; cat /root/x`, { workspace_id: 'attributes' })
      expect(forged).toMatchObject({ status: 'completed', error: null })
      if (inContainer) expect(forged.stdout).toBe(`${'Operation not permitted\n'.repeat(3)}x\n`)
      expect(await runRestored('attributes', 'cat /root/x /etc/debian_version > /dev/null; cat /root/x')).toMatchObject({ status: 'completed', stdout: 'x\n' })
    }, 300_000)

    it('saves while a program turns everything over, again and again', async () => {
      const id = await client.open({ workspace_id: 'churn' })
      await client.exec(id, churn)
      const failures: string[] = []
      const versions = new Set<number>()
      for (let round = 0; round < (inContainer ? 25 : 8); round++) {
        const saved = await client.sync(id).catch((error: unknown) => error as ApiFailure)
        if ('bytes' in saved) versions.add(saved.version)
        else failures.push(saved.message)
      }
      expect(failures).toEqual([])
      expect(versions.size).toBeGreaterThan(1)
      expect(await client.exec(id, endChurn)).toBe('done')
      const digest = await client.exec(id, digestTree)
      await client.sync(id)
      await client.stop(id)
      expect(await client.run(digestTree, { workspace_id: 'churn' })).toMatchObject({ status: 'completed', stdout: digest })
      expect(await runRestored('churn', digestTree)).toMatchObject({ status: 'completed', error: null, stdout: digest })
      // Also what was saved in the middle can be read, and holds nothing of what the links pointed at.
      for (const version of [...versions].slice(1, 4)) {
        await client.call('POST', 'mags-workspaces/churn/restore', { version })
        const between = await client.run('cd /root/arena; find . -type f -name inside | head -n 1 | xargs cat; find . -name shadow -o -name passwd', {
          workspace_id: 'churn',
        })
        expect(between.error ?? '').not.toContain('workspace')
        expect(between.stdout).toBe('mine')
      }
    }, 400_000)

    describe.runIf(inContainer)('by sheer number', () => {
      it('keeps a great many files', async () => {
        await expectKept('many', emptyFiles(long ? 100_000 : 20_000), digestTree)
      }, 300_000)

      it('refuses a file of too many parts, naming it, and saves once it has fewer', async () => {
        // Each part is an extent, and the hole before it another one.
        const refused = await client.run(`echo here > /root/here; ${holedFile(32_800)}`, { workspace_id: 'holes' })
        expect(refused).toMatchObject({ status: 'error', exitCode: 0 })
        expect(refused.error).toMatch(/root\/holes.*65,536 extents/)
        expect(await client.run(`truncate -s ${32_701 * 131_072} /root/holes; cat /root/here`, { workspace_id: 'holes' })).toMatchObject({
          status: 'completed',
          stdout: 'here\n',
          version: 1,
        })
        const parts = long ? 10_000 : 2_000
        // What it takes on the disk depends a little on when that was written.
        const isSparse = `[ "$(du -k /root/holes | cut -f1)" -lt ${parts * 6} ] && echo sparse`
        const kept = await expectKept('fewer-holes', holedFile(parts), `stat -c %s /root/holes; sha256sum /root/holes; ${isSparse}`)
        expect(kept.stdout).toContain('\nsparse\n')
      }, 300_000)

      it('has no device nodes to keep', async () => {
        const tried = await client.run('mknod /root/n c 1 3 2>&1; mknod /root/w c 0 0 2>&1; ls /root', { workspace_id: 'devices' })
        expect(tried.stdout.match(/Operation not permitted/g)).toHaveLength(2)
      })
    })

    describe.runIf(!inContainer)('as the root of its own machine', () => {
      it('has its device nodes counted and left out, and its whiteouts kept', async () => {
        const made = await client.run(
          `mknod /root/null c 1 3; mknod /root/disk b 8 0; touch /etc/mine; ${mountDisk}; mknod /run/raw/u/etc/debian_version c 0 0; echo > /root/plain`,
          {
            workspace_id: 'devices',
          },
        )
        expect(made).toMatchObject({ status: 'completed', error: null })
        expect(await systemRows(made.id)).toEqual(expect.arrayContaining([expect.stringMatching(/2 device nodes are not kept$/)]))
        const kept = await runRestored('devices', 'ls /root; ls /etc/debian_version 2>&1; ls /etc/mine')
        expect(kept.stdout).toBe("plain\nls: cannot access '/etc/debian_version': No such file or directory\n/etc/mine\n")
      }, 300_000)

      it.each(['redirect', 'metacopy'])(
        'cannot have a forged mark of a layer saved: %s',
        async (name) => {
          const workspace = `forged-${name}`
          await client.run('echo first > /root/first', { workspace_id: workspace })
          const forged = await client.run(`${mountDisk}; mkdir -p /run/raw/u/root/r; ${setAttribute('/run/raw/u/root/r', `trusted.overlay.${name}`, '/etc')}`, {
            workspace_id: workspace,
          })
          expect(forged).toMatchObject({ status: 'error', stdout: 'ok\n', version: 1 })
          expect(forged.error).toContain(`"root/r": trusted.overlay.${name}`)
          expect(await client.run('cat /root/first; ls /root', { base_workspace_id: workspace })).toMatchObject({
            status: 'completed',
            stdout: 'first\nfirst\n',
          })
          expect(await client.run(`${mountDisk}; rm -r /run/raw/u/root/r; cat /root/first`, { workspace_id: workspace })).toMatchObject({
            status: 'completed',
            error: null,
            stdout: 'first\n',
          })
        },
        300_000,
      )

      it('keeps what it left, whatever becomes of a job that got it and never ran', async () => {
        await client.run('echo first > /root/first', { workspace_id: 'left' })
        expect(await client.run(`echo second > /root/second; ${deepTree(40, 200)}`, { workspace_id: 'left' })).toMatchObject({ status: 'error', exitCode: 0 })
        const form = new FormData()
        form.append('file', new Blob(['content']), 'file')
        const upload = await fetch(`${ground.daemon().url}/api/v1/mags-files`, {
          method: 'POST',
          body: form,
          headers: { authorization: `Bearer ${ground.daemon().token}` },
        })
        const { file_id: file } = (await upload.json()) as { file_id: string }
        await rm(join(ground.dataDir(), 'files'), { recursive: true })
        // Nor does the host make a disk larger that a guest has written.
        expect(await client.run('exit 0', { workspace_id: 'left', file_ids: [file], disk_gb: 3 })).toMatchObject({ status: 'error', exitCode: null })
        expect(await client.run('rm -r /root/deep; cat /root/second', { workspace_id: 'left' })).toMatchObject({
          status: 'completed',
          stdout: 'second\n',
          version: 2,
        })
      }, 300_000)
    })
  })
}

// One of them waits as long as a save may take, which is as long as a busy machine needs.
const testOwnRoot = () => {
  const ground = useDaemon({ MAGS_ISOLATION: 'vm', MAGS_SAVE_WAIT_SECONDS: '20' })
  let client: WorkspaceClient
  beforeAll(() => {
    client = ground.client()
  })

  const lost = /could not be saved.*; what changed since it was saved last is lost$/
  const unusable = /the disk of the workspace cannot be mounted any more \(.*\); what was not saved on it is lost, start the job again/
  const harms: Record<string, readonly [script: string, error: RegExp]> = {
    'overwrites its disk': [
      `${mountDisk}; umount /run/raw; sync; dd if=/dev/zero of=$d bs=1M count=64 conv=fsync 2>/dev/null; echo 3 > /proc/sys/vm/drop_caches`,
      /could not be saved/,
    ],
    'takes its disk away': ['umount -l /proc/1/root/ws', lost],
    'puts a link in the place of its tree': [
      'mv /proc/1/root/ws/u /proc/1/root/ws/v && ln -s /ro /proc/1/root/ws/u',
      /could not be saved: .*[Nn]ot a directory/,
    ],
    'freezes its disk before it is read': ['fsfreeze -f /proc/1/root/ws', lost],
    'stops whoever would read it': [stopReaders, lost],
  }
  it.each(Object.entries(harms))(
    'that %s: its end is bounded, and who comes next has what was saved last',
    async (name, [harm, error]) => {
      const workspace = name.replaceAll(' ', '-')
      await client.run('echo first > /root/first; head -c 3000000 /dev/urandom > /root/data', { workspace_id: workspace })
      const { stdout: data } = await client.run('sha256sum /root/data', { base_workspace_id: workspace })
      const harmed = await client.run(`echo lost > /root/lost; ${harm}`, { workspace_id: workspace })
      expect(harmed).toMatchObject({ status: 'error', exitCode: 0, error: expect.stringMatching(error), version: 1 })
      const script = 'cat /root/first; sha256sum /root/data; ls /root/lost 2>/dev/null; true'
      const next = await client.run(script, { workspace_id: workspace })
      // Who is the first to get a disk that was taken apart finds it so; that may be what saves in the background.
      if (next.status === 'error') expect(next.error).toMatch(unusable)
      const last = next.status === 'error' ? await client.run(script, { workspace_id: workspace }) : next
      expect(last).toMatchObject({ status: 'completed', error: null, stdout: `first\n${data}` })
      await vi.waitFor(async () => expect(await client.call('GET', `mags-workspaces/${workspace}`)).toMatchObject({ unsaved_since: null, save_error: null }), {
        timeout: 60_000,
        interval: 200,
      })
    },
    300_000,
  )
}

describeLane('containers', () => {
  testHarm('container')
  describe.runIf(isAble('vm'))('the root of its own machine', testOwnRoot)
})
describeLane('virtual machines', () => testHarm('vm'))
