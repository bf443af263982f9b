import { imageInvalid } from './image-invalid.ts'
import { ImageTree } from './image-tree.ts'
import type { ImportWork } from './import-work.ts'
import type { LayeredImage } from './oci-layout.ts'
import type { Spool } from './spool.ts'
import { unpackStream } from './unpack-stream.ts'

/** The file system that an image's layers make on top of each other. Rejects with 'image_invalid', also when a layer is not what the image says. */
export async function applyLayers(image: LayeredImage, spool: Spool, work: ImportWork): Promise<ImageTree> {
  const tree = new ImageTree()
  for (const [layer, { content, digest, plainDigest }] of image.layers.entries()) {
    const title = `unpacking layer ${layer + 1} of ${image.layers.length}`
    work.progress.step(title)
    const found = await unpackStream(tree, content.read(), work, { spool, layer, whiteouts: true, title })
    if (digest !== undefined && found.digest !== digest) throw imageInvalid(`layer ${layer + 1} has the digest ${found.digest}, not ${digest}`)
    if (plainDigest !== undefined && found.plainDigest !== plainDigest)
      throw imageInvalid(`layer ${layer + 1} has the digest ${found.plainDigest} when it is unpacked, not ${plainDigest}`)
  }
  return tree
}
