import { createReadStream } from 'node:fs'
import { mkdir, mkdtemp, readdir, readFile, rm, symlink, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { type HostApi, type ImageInfo, MagsError, type RunningSandbox, type SandboxSpec } from '@mags/protocol'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { MachineImages } from '../../packages/host/src/images/machine-images.ts'
import { openHost } from '../../packages/host/src/open-host.ts'
import { run } from '../../packages/host/src/run.ts'
import { systemDir } from '../kit/container-ground.ts'
import { root } from '../kit/daemon.ts'
import { canMakeSandboxes, runDirOf, testLogger } from '../kit/real-host.ts'

const timeScale = Number(process.env.MAGS_TIME_SCALE ?? 1)
const shape = { vcpus: 1, memoryMb: 256, diskGb: 2 }

describe.skipIf(!canMakeSandboxes())('images that were imported', () => {
  const instance = crypto.randomUUID().slice(0, 6)
  let dir: string
  let host: HostApi

  /** A host over an image and the kernel of this machine, whose own images go into a folder of the test. */
  const open = () =>
    openHost({
      instance,
      systemDir: join(dir, 'system'),
      dataDir: join(dir, 'data'),
      runDir: runDirOf(instance),
      agentBinary: join(root, 'native/build/agent'),
      mounterBinary: join(root, 'native/build/mounter'),
      isolation: 'auto',
      ociRuntime: 'crun',
      store: { place: { kind: 'folder', folder: join(dir, 'objects') } },
      defaults: { image: 'debian-12', ...shape },
      pool: { minSize: 0, maxSize: 0, idleTtlMs: 0 },
      logger: testLogger(),
    })

  beforeAll(async () => {
    dir = await mkdtemp('/var/tmp/mags-images-')
    await run('chmod', ['0755', dir])
    await mkdir(join(dir, 'system/images'), { recursive: true })
    await symlink(join(systemDir, 'images/debian-12'), join(dir, 'system/images/debian-12'))
    await symlink(join(systemDir, 'kernels'), join(dir, 'system/kernels'))
    host = await open()
    await host.settle()
  })
  afterAll(async () => {
    await host?.close({ keepPersistent: false })
    await rm(dir, { recursive: true, force: true })
  })

  async function smallRoot(greeting: string): Promise<string> {
    const made = join(dir, `root-${greeting}`)
    const from = join(systemDir, 'images/debian-12/current/rootfs')
    for (const name of ['usr/bin', 'usr/lib/x86_64-linux-gnu', 'usr/lib64', 'etc']) await mkdir(join(made, name), { recursive: true })
    for (const name of ['bin', 'lib', 'lib64']) await symlink(`usr/${name}`, join(made, name))
    const copied = [
      'usr/bin/sh',
      'usr/bin/dash',
      'usr/bin/cat',
      'usr/lib64/ld-linux-x86-64.so.2',
      'usr/lib/x86_64-linux-gnu/libc.so.6',
      'usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2',
    ]
    await run('cp', ['--archive', '--parents', ...copied, made], { cwd: from })
    await writeFile(join(made, 'etc/greeting'), `${greeting}\n`)
    return made
  }

  async function importTar(name: string, file: string): Promise<ImageInfo> {
    return await host.images.create(name, { kind: 'archive', reference: file, content: createReadStream(file) }, () => undefined)
  }

  async function importRoot(name: string, greeting: string): Promise<ImageInfo> {
    const file = join(dir, `${greeting}.tar.gz`)
    await run('tar', ['--create', '--gzip', '--file', file, '--directory', await smallRoot(greeting), '.'])
    return await importTar(name, file)
  }

  async function start(
    spec: Partial<SandboxSpec> & { readonly image: string },
    script: string,
  ): Promise<{ readonly running: RunningSandbox; readonly output: () => string }> {
    let text = ''
    const lease = await host.acquire({ isolation: 'container', persistent: false, ...shape, ...spec })
    const running = await lease.run({ script, environment: {} }, async ({ bytes }) => {
      text += Buffer.from(bytes).toString()
      return undefined
    })
    return { running, output: () => text }
  }

  async function outputOf(spec: Partial<SandboxSpec> & { readonly image: string }, script: string): Promise<string> {
    const { running, output } = await start(spec, script)
    await running.exited
    await running.destroy()
    return output()
  }

  async function templatesOf(digest: string): Promise<string[]> {
    const templates = join(dir, 'system/cache/vm/templates')
    const found = []
    for (const name of await readdir(templates)) {
      const { imageDigest } = JSON.parse(await readFile(join(templates, name, 'template.json'), 'utf8')) as { imageDigest: string }
      if (imageDigest === digest) found.push(name)
    }
    return found
  }

  it(
    'run: a plain root file system in a container and in a virtual machine',
    async () => {
      const made = await importRoot('plain', 'hello')
      expect(await outputOf({ image: 'plain' }, 'cat /etc/greeting; echo $0 > /tmp/x; cat /etc/resolv.conf')).toMatch(/^hello\nnameserver /)
      expect(await outputOf({ image: 'plain', isolation: 'vm' }, 'cat /etc/greeting')).toBe('hello\n')
      expect(await host.images.find('plain')).toEqual(made)
    },
    120_000 * timeScale,
  )

  it(
    'have a template for virtual machines made in the background, which goes with them',
    async () => {
      const { digest } = await importRoot('templated', 'template')
      const images = host.images as MachineImages
      await images.idle()
      expect(await templatesOf(digest)).toHaveLength(1)
      await host.images.remove('templated')
      await images.idle()
      expect(await templatesOf(digest)).toHaveLength(0)
    },
    120_000 * timeScale,
  )

  it(
    'run: an image layout of umoci and what docker save writes',
    async () => {
      const image = `${dir}/layout:latest`
      await run('umoci', ['init', '--layout', `${dir}/layout`])
      await run('umoci', ['new', '--image', image])
      await run('umoci', ['insert', '--image', image, await smallRoot('layers'), '/'])
      await run('skopeo', ['--insecure-policy', 'copy', '--quiet', `oci:${image}`, `oci-archive:${dir}/oci.tar`])
      await run('skopeo', ['--insecure-policy', 'copy', '--quiet', `oci:${image}`, `docker-archive:${dir}/docker.tar:x:1`])
      for (const file of ['oci.tar', 'docker.tar']) {
        await importTar('layers', join(dir, file))
        expect(await outputOf({ image: 'layers' }, 'cat /etc/greeting')).toBe('layers\n')
      }
    },
    60_000 * timeScale,
  )

  it(
    'keep their versions apart, also for workspaces, and are not removed under a sandbox',
    async () => {
      const old = await importRoot('pinned', 'old')
      const workspace = { storageId: '0123456789abcdef0123456789abcdef', fence: 1 }
      const first = await start({ image: 'pinned', workspace }, 'cat /etc/greeting; echo kept > /root/file')
      await first.running.exited
      await first.running.saveWorkspace({ final: true })
      await first.running.destroy()
      const { running } = await start({ image: 'pinned' }, 'exec cat /dev/zero > /dev/null')
      const newer = await importRoot('pinned', 'newer')
      expect(await outputOf({ image: 'pinned' }, 'cat /etc/greeting')).toBe('newer\n')
      expect(await outputOf({ image: 'pinned', imageDigest: old.digest }, 'cat /etc/greeting')).toBe('old\n')
      expect(await outputOf({ image: 'pinned', imageDigest: old.digest, workspace: { ...workspace, fence: 2 } }, 'cat /etc/greeting /root/file')).toBe(
        'old\nkept\n',
      )
      await expect(
        host.acquire({ image: 'pinned', isolation: 'container', persistent: false, ...shape, workspace: { ...workspace, fence: 3 } }),
      ).rejects.toThrow(/was made on pinned/)
      await expect(host.images.remove('pinned', old.digest)).rejects.toMatchObject({ code: 'image_in_use' })
      await running.destroy()
      await host.images.remove('pinned', old.digest)
      const gone = host.acquire({ image: 'pinned', imageDigest: old.digest, isolation: 'container', persistent: false, ...shape })
      await expect(gone).rejects.toMatchObject({ code: 'not_available', message: expect.stringContaining(old.digest) })
      expect(host.capabilities().imageDigests.pinned).toBe(newer.digest)
    },
    60_000 * timeScale,
  )

  it(
    'are found by the next daemon under a sandbox that outlived the last',
    async () => {
      const made = await importRoot('adopted', 'first')
      const { running } = await start({ image: 'adopted', persistent: true }, 'exec cat /dev/zero > /dev/null')
      await importRoot('adopted', 'second')
      await host.images.setDefault('adopted')
      await host.close({ keepPersistent: true })
      host = await open()
      expect(host.capabilities().defaultImage).toBe('adopted')
      const adopted = await host.adopt(running.sandboxId, { stdout: 0, stderr: 0 }, async () => undefined)
      if (adopted === undefined) throw new MagsError('internal', 'it was not adopted')
      await host.settle()
      await expect(host.images.remove('adopted', made.digest)).rejects.toMatchObject({ code: 'image_in_use' })
      const read: Uint8Array[] = []
      for await (const chunk of adopted.files.read('/etc/greeting')) read.push(chunk)
      expect(Buffer.concat(read).toString()).toBe('first\n')
      await adopted.destroy()
      await host.images.setDefault('debian-12')
      await host.images.remove('adopted', made.digest)
      expect(await readFile(join(dir, 'data/default-image'), 'utf8')).toBe('debian-12\n')
    },
    60_000 * timeScale,
  )
})
