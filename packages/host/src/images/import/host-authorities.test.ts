import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { addAuthorities, hostAuthorities } from './host-authorities.ts'
import { ImageTree } from './image-tree.ts'
import { contentOfBytes, wholeContent } from './spool.ts'

const certificate = (body: string) => `-----BEGIN CERTIFICATE-----\n${body}\n-----END CERTIFICATE-----\n`
const plain = { mode: 0o644, uid: 0, gid: 0, mtimeNs: 0n, attributes: [] }

describe('authorities of this machine', () => {
  let dir: string

  beforeEach(async () => {
    dir = await mkdtemp(join(tmpdir(), 'mags-authorities-'))
    await mkdir(join(dir, 'shipped/mozilla'), { recursive: true })
    await writeFile(join(dir, 'shipped/mozilla/known.crt'), certificate('AAAA'))
    await writeFile(join(dir, 'bundle'), `${certificate('AAAA').replaceAll('\n', '\r\n')}# ours\n${certificate('BBBB')}${certificate('BBBB')}`)
  })
  afterEach(async () => await rm(dir, { recursive: true, force: true }))

  const bundleOf = async (tree: ImageTree) => {
    const node = tree.find('etc/ssl/certs/ca-certificates.crt')
    return node?.kind === 'file' ? (await wholeContent(node.content, 1 << 20, 'the bundle')).toString() : undefined
  }

  it('are those that its distribution did not ship', async () => {
    expect(await hostAuthorities(join(dir, 'bundle'), join(dir, 'shipped'))).toEqual([certificate('BBBB')])
    expect(await hostAuthorities(join(dir, 'bundle'), join(dir, 'nothing'))).toEqual([])
    expect(await hostAuthorities(join(dir, 'nothing'), join(dir, 'shipped'))).toEqual([])
  })

  it('are added to the bundle of an image and to the folder it is made of, once', async () => {
    const tree = new ImageTree()
    tree
      .folder('etc/ssl/certs')
      .children.set('ca-certificates.crt', { layer: 0, node: { ...plain, kind: 'file', content: contentOfBytes(Buffer.from(certificate('CCCC').trimEnd())) } })
    await addAuthorities(tree, [certificate('BBBB'), certificate('CCCC')])
    await addAuthorities(tree, [certificate('BBBB')])
    expect(await bundleOf(tree)).toBe(certificate('CCCC') + certificate('BBBB'))
    expect([...tree.folder('usr/local/share/ca-certificates').children.keys()]).toEqual(['host-001.crt'])
  })

  it('are not added to an image that trusts nobody', async () => {
    const tree = new ImageTree()
    await addAuthorities(tree, [certificate('BBBB')])
    expect(tree.root.children.size).toBe(0)
  })
})
