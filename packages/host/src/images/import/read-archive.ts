import { join } from 'node:path'
import type { ImageSource } from '@mags/protocol'
import { applyLayers } from './apply-layers.ts'
import { readDockerArchive } from './docker-archive.ts'
import { imageInvalid } from './image-invalid.ts'
import { ImageTree } from './image-tree.ts'
import type { ImportWork } from './import-work.ts'
import type { JsonObject } from './json-fields.ts'
import { type FindContent, readOciLayout } from './oci-layout.ts'
import { Spool } from './spool.ts'
import { unpackStream } from './unpack-stream.ts'

/** A file system to be, with what is known of where it comes from. */
export interface ReadImage {
  readonly tree: ImageTree
  readonly kind: ImageSource['kind']
  readonly digest: string
  /** Configuration of an image in layers (OCI image specification, config.md). */
  readonly config: JsonObject | undefined
}

/** Reads a tar archive of any of the three kinds; which one it is shows in what is in it. The spools it makes live as long as `undo`. */
export async function readArchive(stream: AsyncIterable<Uint8Array>, work: ImportWork, undo: AsyncDisposableStack): Promise<ReadImage> {
  const outer = new ImageTree()
  const spool = undo.use(await Spool.create(join(work.dir, 'archive'), work.limits.maxBytes))
  work.progress.step('reading the archive')
  const { digest } = await unpackStream(outer, stream, work, { spool, layer: 0, whiteouts: false, title: 'reading the archive' })
  const find: FindContent = async (path) => {
    const node = outer.find(path)
    return node?.kind === 'file' ? node.content : undefined
  }
  const isRoot = outer.find('bin/sh') !== undefined || outer.find('etc')?.kind === 'directory'
  const has = (path: string) => outer.find(path)?.kind === 'file'
  const kind = isRoot ? 'rootfs-tar' : has('manifest.json') ? 'docker-archive' : has('index.json') && has('oci-layout') ? 'oci-layout' : 'rootfs-tar'
  if (kind === 'rootfs-tar') {
    if (outer.root.children.size === 0) throw imageInvalid('the archive is empty')
    return { tree: outer, kind, digest, config: undefined }
  }
  const image = kind === 'docker-archive' ? await readDockerArchive(find) : await readOciLayout(find)
  // Those of the archive around the layers are none of the image.
  work.counts.entries = 0
  work.counts.packedBytes = 0
  work.counts.unpackedBytes = 0
  work.counts.skippedDevices = 0
  const layers = undo.use(await Spool.create(join(work.dir, 'layers'), work.limits.maxBytes))
  return { tree: await applyLayers(image, layers, work), kind, digest: image.digest, config: image.config }
}
