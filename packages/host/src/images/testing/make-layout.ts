import { createHash } from 'node:crypto'
import { ownArchitecture } from '../import/oci-layout.ts'
import { file, type TarPart } from './make-tar.ts'

export const digestOf = (bytes: Buffer) => `sha256:${createHash('sha256').update(bytes).digest('hex')}`
/** What a configuration says of the machine it is for. */
export const linux = { os: 'linux', architecture: ownArchitecture() }

/** An image layout as files of an archive, made byte by byte. */
export function layout(
  layers: readonly Buffer[],
  options: { readonly config?: object; readonly platform?: object; readonly edit?: (manifest: Record<string, unknown>) => void; readonly lost?: boolean } = {},
): TarPart[] {
  const blobs = new Map<string, Buffer>()
  const add = (bytes: Buffer, mediaType: string) => {
    blobs.set(digestOf(bytes), bytes)
    return { mediaType, digest: digestOf(bytes), size: bytes.length }
  }
  const config = add(
    Buffer.from(JSON.stringify({ ...linux, rootfs: { type: 'layers', diff_ids: [] }, ...options.config })),
    'application/vnd.oci.image.config.v1+json',
  )
  const manifest: Record<string, unknown> = {
    schemaVersion: 2,
    config,
    layers: layers.map((layer) => add(layer, 'application/vnd.oci.image.layer.v1.tar+gzip')),
  }
  options.edit?.(manifest)
  const top = add(Buffer.from(JSON.stringify(manifest)), 'application/vnd.oci.image.manifest.v1+json')
  const index = { schemaVersion: 2, manifests: [{ ...top, ...(options.platform === undefined ? {} : { platform: options.platform }) }] }
  if (options.lost) blobs.delete([...blobs.keys()][1] as string)
  return [
    file('oci-layout', JSON.stringify({ imageLayoutVersion: '1.0.0' })),
    file('index.json', JSON.stringify(index)),
    ...[...blobs].map(([digest, bytes]) => file(`blobs/sha256/${digest.slice(7)}`, bytes)),
  ]
}
