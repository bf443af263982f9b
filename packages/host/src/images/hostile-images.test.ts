import { lstat, readFile, readlink } from 'node:fs/promises'
import { join } from 'node:path'
import { gzipSync } from 'node:zlib'
import type { ImageInfo } from '@mags/protocol'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { type ImageGround, imageGround, missingForImages } from './testing/image-ground.ts'
import { digestOf, layout } from './testing/make-layout.ts'
import { file, folder, hardLink, makeTar, shell, streamOf, symlink, type TarPart } from './testing/make-tar.ts'

const required = process.env.MAGS_REQUIRE_NATIVE === '1'
if (missingForImages.length > 0 && !required) console.warn(`skipped: tests of hostile images need ${missingForImages.join(' and ')}`)

const good = gzipSync(makeTar(shell))
const nested = (depth: number) => `${'['.repeat(depth)}${']'.repeat(depth)}`

/** What `docker save` would write, with a configuration that is written out. */
function saved(config: string, layers: readonly Buffer[] = [good], manifest: object = {}): TarPart[] {
  const names = layers.map((_, index) => `layer-${index}.tar`)
  return [
    file('manifest.json', JSON.stringify([{ Config: 'c.json', Layers: names, ...manifest }])),
    file('c.json', config),
    ...layers.map((layer, index) => file(names[index] as string, layer)),
  ]
}

/** Of an image with one good layer. */
const configOf = (members: string) => `{"rootfs":{"diff_ids":["${digestOf(makeTar(shell))}"]}${members === '' ? '' : `,${members}`}}`

/** A layout whose index names other indexes, each the next, `depth` times. */
function indexes(depth: number): TarPart[] {
  const parts: TarPart[] = [file('oci-layout', '{}')]
  let below = layout([good]).find(({ name }) => name === 'index.json')?.content as string
  for (let level = 0; level < depth; level++) {
    parts.push(file(`blobs/sha256/${digestOf(Buffer.from(below)).slice(7)}`, below))
    below = JSON.stringify({ manifests: [{ digest: digestOf(Buffer.from(below)), size: below.length }] })
  }
  return [...layout([good]).filter(({ name }) => name.startsWith('blobs/')), ...parts, file('index.json', below)]
}

describe.skipIf(missingForImages.length > 0 && !required)('hostile images', () => {
  let ground: ImageGround

  beforeEach(async () => {
    ground = await imageGround()
  })
  afterEach(async () => await ground[Symbol.asyncDispose]())

  const importParts = (parts: readonly TarPart[]) =>
    ground.images.create('made', { kind: 'archive', reference: 'image.tar', content: streamOf(makeTar(parts), 1 << 20) }, () => undefined)
  const rootOf = ({ name, digest }: ImageInfo) => join(ground.dir, name, digest.slice(7), 'rootfs')

  const refused: Record<string, { readonly parts: () => readonly TarPart[]; readonly rule: RegExp }> = {
    'a configuration of 5 MB': { parts: () => saved(`{"os":"${'x'.repeat(5 << 20)}"}`), rule: /the configuration has 52428\d\d bytes; at most 4194304/ },
    'a manifest.json of 5 MB': { parts: () => [file('manifest.json', ' '.repeat(5 << 20))], rule: /manifest.json has 5242880 bytes; at most/ },
    'an index.json of 5 MB': { parts: () => [file('oci-layout', '{}'), file('index.json', ' '.repeat(5 << 20))], rule: /index.json has 5242880 bytes/ },
    'a system that lies a million lists deep': {
      parts: () => saved(configOf(`"os":${nested(1_000_000)}`)),
      rule: /the image is for unknown\/unknown; this machine/,
    },
    'a system that cannot be a text': { parts: () => saved(configOf('"os":{"toString":1}')), rule: /the image is for unknown\/unknown/ },
    'a system with a long name': {
      parts: () => saved(configOf(`"os":"${'x'.repeat(100_000)}"`)),
      rule: /^the image is for x{40}\/unknown; this machine needs [a-z0-9/]+$/,
    },
    'ten thousand layers': {
      parts: () => saved(JSON.stringify({ rootfs: { diff_ids: Array(10_000).fill('x') } }), [good], { Layers: Array(10_000).fill('layer-0.tar') }),
      rule: /1 to 500 layers, not 10000/,
    },
    'ten thousand platforms': {
      parts: () => {
        const described = { digest: digestOf(good), size: 1, platform: { os: 'x'.repeat(80), architecture: { toString: 1 } } }
        return [file('oci-layout', '{}'), file('index.json', JSON.stringify({ manifests: Array(10_000).fill(described) }))]
      },
      rule: /^there is no image for .* in it, only for (x{40}\/unknown, ){19}x{40}\/unknown$/,
    },
    'indexes in indexes': { parts: () => indexes(5), rule: /indexes lie too deep/ },
    'an index that names itself': {
      parts: () => {
        const digest = digestOf(Buffer.from('itself'))
        const index = JSON.stringify({ manifests: [{ digest, size: 111 }] })
        return [file('oci-layout', '{}'), file('index.json', index), file(`blobs/sha256/${digest.slice(7)}`, index)]
      },
      rule: /the manifest has the digest sha256:[0-9a-f]{64}, not sha256:/,
    },
    'a manifest that is an index, too': {
      parts: () => layout([good], { edit: (manifest) => Object.assign(manifest, { manifests: [] }) }),
      rule: /an index and an image at once/,
    },
    'a layer that is elsewhere': {
      parts: () =>
        layout([good], {
          edit: (manifest) => {
            const elsewhere = { mediaType: 'application/vnd.docker.image.rootfs.foreign.diff.tar.gzip', digest: digestOf(Buffer.from('x')), size: 1 }
            Object.assign(manifest, { layers: [{ ...elsewhere, urls: ['http://127.0.0.1:1/layer'] }] })
          },
        }),
      rule: /a layer with digest sha256:[0-9a-f]{64} is missing in the image layout/,
    },
    'a layer of another length': {
      parts: () => layout([good], { edit: (manifest) => Object.assign((manifest.layers as object[])[0] as object, { size: 7 }) }),
      rule: /has \d+ bytes, not 7 as its descriptor says/,
    },
    'an environment that no program could have': {
      parts: () => saved(configOf(`"config":{"Env":["A=${'x'.repeat(200_000)}"]}`)),
      rule: /its environment \(Env\) has 1 variables of 200003 bytes; at most 1000 of 131072/,
    },
    'too many variables': {
      parts: () => saved(configOf(`"config":{"Env":${JSON.stringify(Array.from({ length: 1001 }, (_, number) => `V${number}=`))}}`)),
      rule: /has 1001 variables/,
    },
  }

  for (const [what, { parts, rule }] of Object.entries(refused)) {
    it(`are refused with ${what}`, async () => {
      await expect(importParts(parts())).rejects.toMatchObject({ code: 'image_invalid', message: expect.stringMatching(rule) })
      expect(await ground.left()).toEqual({ names: [], work: [] })
    })
  }

  it('have of their settings what programs can have', async () => {
    const settings = {
      Env: ['A=b=c', '=x', 'NO', 'NUL=a\0b', 'N\0UL=a', 'LINE\nFEED=x', 'ESC\u001b[31m=x', '__proto__=x', 'VALUE=a\nb', 7, { toString: 1 }],
      WorkingDir: '/srv/../../..//etc/./x',
      User: '../../etc/passwd\n0:0',
      Entrypoint: [nested(100)],
      Cmd: { toString: 1 },
      Labels: { '../x': '../y' },
    }
    const made = await importParts(saved(configOf(`"config":${JSON.stringify(settings)}`), [good], { RepoTags: ['../../../outside:../x'] }))
    expect(made.name).toBe('made')
    expect(Object.entries(made.environment ?? {})).toEqual([
      ['A', 'b=c'],
      ['__proto__', 'x'],
      ['VALUE', 'a\nb'],
    ])
    expect(made.workingDirectory).toBe('/etc/x')
    expect((await ground.left()).names).toEqual(['made'])
    expect(await readFile(join(ground.dir, '..', 'outside'), 'utf8')).toBe('untouched')
    for (const folderOf of ['relative/../..', '/a\0b', `/${'x'.repeat(5000)}`])
      expect(await importParts(saved(configOf(`"config":${JSON.stringify({ WorkingDir: folderOf })}`)))).not.toHaveProperty('workingDirectory')
  })

  it('have links that lead nowhere but inside, whatever later layers do', async () => {
    const first = makeTar([
      ...shell,
      file('one', 'first'),
      hardLink('two', 'one'),
      symlink('away', '../../../outside'),
      hardLink('away2', 'away'),
      folder('d'),
      file('d/x', 'below'),
    ])
    const second = makeTar([
      file('one', 'second'),
      // Through a link of the layer below, and in the place of one.
      file('away2/x', 'x', { pax: { path: 'd/new' } }),
      folder('away'),
      file('away/inside', 'x'),
      hardLink('three', 'two'),
      file('d/.wh..wh..opq'),
      file('.wh..'),
      file('.wh...'),
      file('.wh.'),
    ])
    const made = await importParts(layout([first, second, second]))
    const root = rootOf(made)
    expect(await Promise.all(['one', 'two', 'three'].map((name) => readFile(join(root, name), 'utf8')))).toEqual(['second', 'first', 'first'])
    expect((await lstat(join(root, 'two'))).ino).toBe((await lstat(join(root, 'three'))).ino)
    expect(await readlink(join(root, 'away2'))).toBe('../../../outside')
    expect(await readFile(join(root, 'away/inside'), 'utf8')).toBe('x')
    await expect(lstat(join(root, 'd/x'))).rejects.toMatchObject({ code: 'ENOENT' })
    expect((await lstat(join(root, 'd/new'))).isFile()).toBe(true)
    expect(await readFile(join(ground.dir, '..', 'outside'), 'utf8')).toBe('untouched')
  })
})
