import { chmod, symlink as link, mkdir, mkdtemp, readFile, rm, stat, writeFile } from 'node:fs/promises'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { gzipSync } from 'node:zlib'
import type { ImageInfo, ImageOrigin } from '@mags/protocol'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { run, runAny } from '../run.ts'
import { importLimits } from './import/import-limits.ts'
import { importWork } from './import/import-work.ts'
import { ownArchitecture } from './import/oci-layout.ts'
import { readArchive } from './import/read-archive.ts'
import { pullImage } from './pull-image.ts'
import type { RegistryWayDeps } from './registry-way.ts'
import { type ImageGround, imageGround, missingForImages } from './testing/image-ground.ts'
import { digestOf, layout, linux } from './testing/make-layout.ts'
import { file, folder, makeTar, shell, streamOf, symlink, type TarPart } from './testing/make-tar.ts'
import { openRegistry } from './testing/open-registry.ts'

const required = process.env.MAGS_REQUIRE_NATIVE === '1'
const programs = await Promise.all(
  ['skopeo', 'umoci'].map((name) =>
    runAny(name, ['--version']).then(
      () => [],
      () => [name],
    ),
  ),
)
const missing = [...missingForImages, ...programs.flat()]
if (missing.length > 0 && !required) console.warn(`skipped: tests of images in layers need ${missing.join(' and ')}`)

describe.skipIf(missing.length > 0 && !required)('images in layers', () => {
  const good = gzipSync(makeTar(shell))
  let ground: ImageGround
  let dir: string

  beforeAll(async () => {
    dir = await mkdtemp(join(tmpdir(), 'mags-layers-'))
    const image = `${dir}/layout:latest`
    await run('umoci', ['init', '--layout', `${dir}/layout`])
    await run('umoci', ['new', '--image', image])
    const bundle = join(dir, 'bundle')
    const root = join(bundle, 'rootfs')
    const repack = async (change: () => Promise<unknown>) => {
      await rm(bundle, { recursive: true, force: true })
      await run('umoci', ['unpack', '--image', image, bundle])
      await change()
      await run('umoci', ['repack', '--image', image, bundle])
    }
    await repack(async () => {
      for (const name of ['bin', 'etc', 'usr/lib', 'gone/deep', 'opt']) await mkdir(join(root, name), { recursive: true })
      await link('usr/lib', join(root, 'lib'))
      await writeFile(join(root, 'bin/sh'), '#!/nothing')
      await chmod(join(root, 'bin/sh'), 0o755)
      await writeFile(join(root, 'etc/os-release'), 'PRETTY_NAME="Layered 1"\n')
      await writeFile(join(root, 'gone/deep/file'), 'x')
      await writeFile(join(root, 'removed'), 'x')
      await writeFile(join(root, 'opt/kind'), 'a file')
    })
    await repack(async () => {
      for (const name of ['gone', 'removed', 'opt/kind']) await rm(join(root, name), { recursive: true })
      await mkdir(join(root, 'opt/kind'))
      await writeFile(join(root, 'usr/lib/library'), 'second')
    })
    await run('umoci', [
      'config',
      '--image',
      image,
      '--config.env',
      'PATH=/bin',
      '--config.env',
      'GREETING=hello=you',
      '--config.workingdir',
      '/opt',
      '--config.entrypoint',
      '/bin/sh',
      '--config.cmd',
      '-l',
      '--architecture',
      ownArchitecture(),
      '--os',
      'linux',
    ])
    const copy = (target: string) => run('skopeo', ['--insecure-policy', 'copy', '--quiet', `oci:${image}`, target])
    await copy(`oci-archive:${dir}/oci.tar`)
    await copy(`docker-archive:${dir}/docker.tar:made:latest`)
  })
  afterAll(async () => await rm(dir, { recursive: true, force: true }))
  beforeEach(async () => {
    ground = await imageGround()
  })
  afterEach(async () => await ground[Symbol.asyncDispose]())

  const create = (origin: ImageOrigin, name = 'made') => ground.images.create(name, origin, (words) => ground.words.push(words))
  const importBytes = (bytes: Buffer) => create({ kind: 'archive', reference: 'image.tar', content: streamOf(bytes) })
  const rootOf = ({ name, digest }: ImageInfo) => join(ground.dir, name, digest.slice(7), 'rootfs')

  async function expectMade(made: ImageInfo) {
    const root = rootOf(made)
    expect(made).toMatchObject({ os: 'Layered 1', environment: { PATH: '/bin', GREETING: 'hello=you' }, workingDirectory: '/opt' })
    expect(await readFile(join(root, 'lib/library'), 'utf8')).toBe('second')
    expect((await stat(join(root, 'opt/kind'))).isDirectory()).toBe(true)
    for (const name of ['gone', 'removed', '.wh.gone']) await expect(stat(join(root, name))).rejects.toMatchObject({ code: 'ENOENT' })
    expect((await ground.left()).work).toEqual([])
  }

  it('come out of an OCI layout that umoci and skopeo made, and of what docker save writes, with the same files', async () => {
    const fromLayout = await importBytes(await readFile(join(dir, 'oci.tar')))
    await expectMade(fromLayout)
    const index = JSON.parse(await readFile(join(dir, 'layout/index.json'), 'utf8')) as { manifests: { digest: string }[] }
    expect(fromLayout.source).toEqual({ kind: 'oci-layout', reference: 'image.tar', digest: index.manifests[0]?.digest, command: ['/bin/sh', '-l'] })
    const fromDocker = await importBytes(await readFile(join(dir, 'docker.tar')))
    await expectMade(fromDocker)
    expect(fromDocker.source.kind).toBe('docker-archive')
    expect(fromDocker.digest).toBe(fromLayout.digest)
  })

  it('come out of a registry that the operator allows', async () => {
    await using registry = await openRegistry(join(dir, 'layout'))
    await using allowed = await imageGround({ registries: [`http://${registry.address}`] })
    const made = await allowed.images.create('made', { kind: 'registry', reference: `docker://${registry.address}/made:latest` }, () => undefined)
    expect(made).toMatchObject({ os: 'Layered 1', source: { kind: 'registry', reference: `docker://${registry.address}/made:latest` } })
    await expect(allowed.images.create('x', { kind: 'registry', reference: `${registry.address}/nothing:1` }, () => undefined)).rejects.toMatchObject({
      code: 'image_invalid',
    })
    expect((await allowed.left()).work).toEqual([])
  })

  it('are refused when a registry says that a layer is elsewhere, which is not asked', async () => {
    let asked = 0
    const elsewhere = createServer((_request, response) => void response.end(`${++asked}`))
    await new Promise<void>((resolve) => elsewhere.listen(0, '127.0.0.1', resolve))
    await using undo = new AsyncDisposableStack()
    undo.defer(() => new Promise<void>((resolve) => elsewhere.close(() => resolve())))
    const urls = [`http://127.0.0.1:${(elsewhere.address() as AddressInfo).port}/layer`]
    const foreign = { mediaType: 'application/vnd.oci.image.layer.nondistributable.v1.tar', digest: digestOf(Buffer.from('1')), size: 1, urls }
    const parts = layout([good], { edit: (manifest) => Object.assign(manifest, { layers: [...(manifest.layers as object[]), foreign] }) })
    const made = join(dir, 'elsewhere')
    await mkdir(join(made, 'blobs/sha256'), { recursive: true })
    for (const { name, content } of parts) await writeFile(join(made, name), content as string)
    await using registry = await openRegistry(made)
    await using allowed = await imageGround({ registries: [`http://${registry.address}`] })
    await expect(allowed.images.create('made', { kind: 'registry', reference: `${registry.address}/made:latest` }, () => undefined)).rejects.toMatchObject({
      code: 'image_invalid',
      message: expect.stringContaining(`a layer with digest ${foreign.digest} is missing`),
    })
    expect(asked).toBe(0)
    expect(await allowed.left()).toEqual({ names: [], work: [] })
  })

  it('come out of a registry through a way that connects to allowed addresses only, by the address that was looked at', async () => {
    await using registry = await openRegistry(join(dir, 'layout'))
    const port = registry.address.split(':')[1]
    const reference = (host: string) => ({ address: `docker://${host}:${port}/made:latest`, registry: `${host}:${port}`, plainHttp: true })
    const asked: string[] = []
    const resolve = async (host: string) => {
      asked.push(host)
      return ['127.0.0.1']
    }
    const pull = async (host: string, deps: RegistryWayDeps) => {
      const work = await mkdtemp(join(ground.dir, '.work', 'pull-'))
      await using undo = new AsyncDisposableStack()
      undo.defer(() => rm(work, { recursive: true, force: true }))
      return await pullImage(
        reference(host),
        importWork(work, importLimits(1), () => undefined, new AbortController().signal),
        undo,
        deps,
      )
    }
    const { tree } = await pull('registry.test', { resolve, isAllowed: (address) => address === '127.0.0.1' })
    expect(tree.find('lib/library')?.kind).toBe('file')
    expect(new Set(asked)).toEqual(new Set(['registry.test']))
    await expect(pull('registry.test', { resolve })).rejects.toMatchObject({
      code: 'forbidden',
      message: expect.stringContaining('registry.test is in a private network'),
    })
    // Even what a program never asks a proxy for: the machine's own loopback.
    await expect(pull('127.0.0.1', { resolve, isAllowed: () => true })).rejects.toMatchObject({ code: 'image_source_unreachable' })
  })

  it('say which registry does not answer, and how to bring the image by file', async () => {
    const free = createServer()
    await new Promise<void>((resolve) => free.listen(0, '127.0.0.1', resolve))
    const address = `127.0.0.1:${(free.address() as AddressInfo).port}`
    await new Promise((resolve) => free.close(resolve))
    await using allowed = await imageGround({ registries: [address] })
    await expect(allowed.images.create('x', { kind: 'registry', reference: `${address}/x:1` }, () => undefined)).rejects.toMatchObject({
      code: 'image_source_unreachable',
      message: expect.stringMatching(new RegExp(`${address}.*skopeo copy docker://${address}/x:1 oci-archive:image.tar.*docker save`, 's')),
    })
    expect(await allowed.left()).toEqual({ names: [], work: [] })
  })

  it('take away what a layer hides, and nothing that it brings itself', async () => {
    const lower = makeTar([
      ...shell,
      folder('a'),
      file('a/old'),
      file('a/kept'),
      folder('b'),
      file('b/old'),
      file('c'),
      folder('d'),
      file('d/x'),
      symlink('l', 'b'),
    ])
    const upper = makeTar([
      file('a/new'),
      file('a/.wh.old'),
      file('b/new'),
      file('b/.wh..wh..opq'),
      file('.wh.c'),
      { name: 'd', type: '3', device: [0, 0] },
      file('l/through', 'x'),
      file('.wh..wh.plnk'),
    ])
    const made = await importBytes(makeTar(layout([gzipSync(lower), upper])))
    const { stdout } = await run('find', ['.', '-path', './[abcdl]*'], { cwd: rootOf(made) })
    expect(stdout.trim().split('\n').sort()).toEqual(['./a', './a/kept', './a/new', './b', './b/new', './b/through', './bin', './bin/sh', './dev', './l'])
  })

  const refused: Record<string, { readonly archive: readonly TarPart[]; readonly rule: RegExp }> = {
    'another processor': { archive: layout([good], { config: { architecture: 's390x' } }), rule: /the image is for linux\/s390x; this machine needs linux/ },
    'only other platforms': {
      archive: layout([good], { platform: { os: 'linux', architecture: 's390x' } }),
      rule: /no image for linux\/.* in it, only for linux\/s390x/,
    },
    'a missing blob': { archive: layout([good], { lost: true }), rule: /is missing in the image layout/ },
    'a digest that is a path': {
      archive: layout([good], {
        edit: (manifest) => Object.assign(manifest, { layers: [{ mediaType: 'tar', digest: 'sha256:../../../etc/passwd', size: 1 }] }),
      }),
      rule: /only sha256 is known here/,
    },
    'a layer that is none': {
      archive: layout([good], {
        edit: (manifest) => Object.assign((manifest.layers as object[])[0] as object, { mediaType: 'application/vnd.cncf.helm.chart' }),
      }),
      rule: /no image of a file system/,
    },
    'no layers': { archive: layout([]), rule: /1 to 500 layers, not 0/ },
    'an index that is no JSON': { archive: [file('oci-layout', '{}'), file('index.json', '{')], rule: /index.json is no JSON/ },
    'an entry of a layer that leads out': { archive: layout([good, makeTar([file('../outside', 'x')])]), rule: /entry "\.\.\/outside": its path has '\.\.'/ },
    'a layer whose bytes are others': {
      archive: layout([good]).map((part) =>
        (part.content as Buffer).equals?.(good) ? { ...part, content: Buffer.concat([good.subarray(0, -1), Buffer.of((good.at(-1) ?? 0) ^ 1)]) } : part,
      ),
      rule: /whole gzip|has the digest/,
    },
    'several images': { archive: [file('manifest.json', JSON.stringify([{}, {}]))], rule: /2 images in it; save one alone/ },
    'a layer that docker save does not have': {
      archive: [
        file('manifest.json', JSON.stringify([{ Config: 'c.json', Layers: ['../../etc/passwd'] }])),
        file('c.json', JSON.stringify({ ...linux, rootfs: { diff_ids: ['sha256:1'] } })),
      ],
      rule: /is missing in the archive/,
    },
    'a layer that is not what docker save says': {
      archive: [
        file('manifest.json', JSON.stringify([{ Config: 'c.json', Layers: ['layer.tar'] }])),
        file('c.json', JSON.stringify({ ...linux, rootfs: { diff_ids: [digestOf(Buffer.from('other'))] } })),
        file('layer.tar', makeTar(shell)),
      ],
      rule: /has the digest .* when it is unpacked/,
    },
  }

  it('are refused when one small layer, named many times, would be unpacked for ever', async () => {
    const layer = Buffer.alloc(300_000)
    const archive = makeTar([
      file('manifest.json', JSON.stringify([{ Config: 'c.json', Layers: Array.from({ length: 20 }, () => 'l') }])),
      file('c.json', JSON.stringify({ ...linux, rootfs: { diff_ids: Array.from({ length: 20 }, () => digestOf(layer)) } })),
      file('l', gzipSync(layer)),
    ])
    const work = importWork(dir, { ...importLimits(1), maxBytes: 2 ** 20 }, () => undefined, new AbortController().signal)
    await using undo = new AsyncDisposableStack()
    await expect(readArchive(streamOf(archive), work, undo)).rejects.toMatchObject({
      code: 'too_large',
      message: expect.stringContaining('when it is unpacked'),
    })
    await Promise.all(['archive', 'layers'].map((name) => rm(join(dir, name))))
  })

  for (const [what, { archive, rule }] of Object.entries(refused)) {
    it(`are refused with ${what}`, async () => {
      await expect(importBytes(makeTar(archive))).rejects.toMatchObject({ code: 'image_invalid', message: expect.stringMatching(rule) })
      expect(await ground.left()).toEqual({ names: [], work: [] })
    })
  }
})
