import { hash } from 'node:crypto'
import { imageInvalid } from './image-invalid.ts'
import { asArray, asObject, asText, parseJson } from './json-fields.ts'
import { checkPlatform, type FindContent, type ImageLayer, type LayeredImage, mostLayers } from './oci-layout.ts'
import { wholeContent } from './spool.ts'

const longestJson = 4 << 20

/** Reads what `docker save` writes: manifest.json names the configuration and the layers, and the configuration has the digests of these. Rejects with 'image_invalid'. */
export async function readDockerArchive(find: FindContent): Promise<LayeredImage> {
  const content = await find('manifest.json')
  if (content === undefined) throw imageInvalid('manifest.json is missing')
  const images = asArray(parseJson(await wholeContent(content, longestJson, 'manifest.json'), 'manifest.json'), 'manifest.json')
  if (images.length !== 1) throw imageInvalid(`there are ${images.length} images in it; save one alone with 'docker save NAME:TAG'`)
  const manifest = asObject(images[0], 'the image of manifest.json')
  const read = async (path: unknown, what: string) => {
    const found = await find(asText(path, `the path of ${what}`))
    if (found === undefined) throw imageInvalid(`${what} ${JSON.stringify(path)} is missing in the archive`)
    return found
  }
  const configBytes = await wholeContent(await read(manifest.Config, 'the configuration'), longestJson, 'the configuration')
  const config = asObject(parseJson(configBytes, 'the configuration'), 'the configuration')
  checkPlatform(config)
  const paths = asArray(manifest.Layers, 'Layers of manifest.json')
  const digests = asArray(asObject(config.rootfs, 'rootfs of the configuration').diff_ids, 'diff_ids of the configuration')
  if (paths.length === 0 || paths.length > mostLayers) throw imageInvalid(`an image has 1 to ${mostLayers} layers, not ${paths.length}`)
  if (digests.length !== paths.length) throw imageInvalid(`it has ${paths.length} layers, but its configuration names ${digests.length}`)
  const layers: ImageLayer[] = []
  for (const [index, path] of paths.entries())
    layers.push({ content: await read(path, 'the layer'), plainDigest: asText(digests[index], 'a digest of a layer') })
  return { layers, config, digest: `sha256:${hash('sha256', configBytes, 'hex')}` }
}
