import { readdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { ImageTree } from './image-tree.ts'
import { type Content, contentOfBytes, wholeContent } from './spool.ts'

const bundlePath = 'etc/ssl/certs/ca-certificates.crt'
const localFolder = 'usr/local/share/ca-certificates'
const longestBundle = 8 << 20

/** Certificates (PEM) that this machine trusts beyond those its distribution ships: a company's own, without which nothing inside could speak TLS behind its proxy. */
export async function hostAuthorities(bundle = '/etc/ssl/certs/ca-certificates.crt', shipped = '/usr/share/ca-certificates'): Promise<string[]> {
  const known = new Set<string>()
  for (const name of await readdir(shipped, { recursive: true }).catch(() => []))
    if (name.endsWith('.crt')) for (const certificate of certificatesOf(await readFile(join(shipped, name), 'latin1').catch(() => ''))) known.add(certificate)
  // Without a list of what was shipped all of it would seem ours.
  if (known.size === 0) return []
  return [...new Set(certificatesOf(await readFile(bundle, 'latin1').catch(() => '')))].filter((certificate) => !known.has(certificate))
}

/** Has an image with Debian's or Alpine's ca-certificates trust them, too: now, and after its package builds the bundle anew. No program of the image is run. */
export async function addAuthorities(tree: ImageTree, authorities: readonly string[]): Promise<void> {
  const bundle = tree.find(bundlePath)
  if (authorities.length === 0 || bundle?.kind !== 'file' || bundle.content.sizeBytes > longestBundle) return
  const before = await wholeContent(bundle.content, longestBundle, bundlePath)
  const trusted = new Set(certificatesOf(before.toString('latin1')))
  const added = authorities.filter((certificate) => !trusted.has(certificate))
  if (added.length === 0) return
  const newline = before.length === 0 || before.at(-1) === 0x0a ? '' : '\n'
  replace(tree, bundlePath, contentOfBytes(Buffer.concat([before, Buffer.from(`${newline}${added.join('')}`)])))
  tree.folder(localFolder)
  for (const [index, certificate] of added.entries())
    replace(tree, `${localFolder}/host-${`${index + 1}`.padStart(3, '0')}.crt`, contentOfBytes(Buffer.from(certificate)))
}

function replace(tree: ImageTree, path: string, content: Content) {
  // The bundle may be a link elsewhere; where it ends does not matter to whoever reads it.
  const place = tree.place(path, 0)
  place?.folder.children.set(place.name, { layer: 0, node: { kind: 'file', mode: 0o644, uid: 0, gid: 0, mtimeNs: 0n, attributes: [], content } })
}

function certificatesOf(text: string): string[] {
  return [...text.replaceAll('\r', '').matchAll(/-----BEGIN (?:TRUSTED )?CERTIFICATE-----\n([A-Za-z0-9+/=\n]+)-----END (?:TRUSTED )?CERTIFICATE-----/g)].map(
    ([, body]) => `-----BEGIN CERTIFICATE-----\n${body}-----END CERTIFICATE-----\n`,
  )
}
