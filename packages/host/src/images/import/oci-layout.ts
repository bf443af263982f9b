import { hash } from 'node:crypto'
import { imageInvalid } from './image-invalid.ts'
import { asArray, asObject, asText, type JsonObject, parseJson } from './json-fields.ts'
import { type Content, wholeContent } from './spool.ts'

/** Files of an image layout or of what `docker save` writes, by their path. */
export type FindContent = (path: string) => Promise<Content | undefined>

export interface ImageLayer {
  readonly content: Content
  /** Of the layer as it is stored. */
  readonly digest?: string
  /** Of the archive when it is unpacked. */
  readonly plainDigest?: string
}

/** An image in layers, lowest first. */
export interface LayeredImage {
  readonly layers: readonly ImageLayer[]
  readonly config: JsonObject
  /** Of its manifest, or of its configuration where there is none. */
  readonly digest: string
}

const longestJson = 4 << 20
export const mostLayers = 500
const deepestIndex = 3
/** Platforms that are named where none fits. */
const mostOffered = 20
const architectures: Readonly<Record<string, string>> = { x64: 'amd64', arm64: 'arm64' }

/** What OCI calls the processor of this machine. */
export function ownArchitecture(): string {
  return architectures[process.arch] ?? process.arch
}

/** Reads an OCI image layout (image-layout.md, manifest.md of the specification) with the one image for this machine. Rejects with 'image_invalid'. */
export async function readOciLayout(find: FindContent): Promise<LayeredImage> {
  const index = await find('index.json')
  if (index === undefined) throw imageInvalid('index.json is missing in the image layout')
  const { manifest, digest } = await chooseManifest(
    find,
    parseJson(await wholeContent(index, longestJson, 'index.json'), 'index.json'),
    'index.json',
    deepestIndex,
  )
  const config = asObject(parseJson(await blobOf(find, manifest.config, 'the configuration'), 'the configuration'), 'the configuration')
  checkPlatform(config)
  const described = asArray(manifest.layers, 'layers of the manifest')
  if (described.length === 0 || described.length > mostLayers) throw imageInvalid(`an image has 1 to ${mostLayers} layers, not ${described.length}`)
  const layers: ImageLayer[] = []
  for (const descriptor of described) {
    const layer = readDescriptor(descriptor, 'a layer')
    if (!layer.mediaType.includes('tar')) throw imageInvalid(`a layer is of type ${JSON.stringify(layer.mediaType)}: this is no image of a file system`)
    layers.push({ content: await findBlob(find, layer, 'a layer'), digest: layer.digest })
  }
  return { layers, config, digest }
}

/** Throws 'image_invalid' for an image of another processor or system. */
export function checkPlatform(config: JsonObject) {
  const [os, architecture] = [config.os, config.architecture]
  const fits = (os === undefined || os === '' || os === 'linux') && (architecture === undefined || architecture === '' || architecture === ownArchitecture())
  if (!fits) throw imageInvalid(`the image is for ${platformWords(config)}; this machine needs linux/${ownArchitecture()}`)
}

/** Anything may stand there. */
function platformWords(platform: JsonObject | undefined): string {
  const words = (value: unknown) => (typeof value === 'string' ? value.slice(0, 40) : 'unknown')
  return `${words(platform?.os)}/${words(platform?.architecture)}`
}

interface Descriptor {
  readonly mediaType: string
  readonly digest: string
  readonly sizeBytes: number
  readonly platform: JsonObject | undefined
}

function readDescriptor(value: unknown, what: string): Descriptor {
  const fields = asObject(value, what)
  const digest = asText(fields.digest, `the digest of ${what}`)
  // It becomes a path.
  if (!/^sha256:[0-9a-f]{64}$/.test(digest)) throw imageInvalid(`the digest of ${what} is ${JSON.stringify(digest.slice(0, 100))}; only sha256 is known here`)
  if (!Number.isSafeInteger(fields.size) || (fields.size as number) < 0) throw imageInvalid(`the size of ${what} is no number`)
  return {
    digest,
    sizeBytes: fields.size as number,
    mediaType: fields.mediaType === undefined ? '' : asText(fields.mediaType, `the type of ${what}`),
    platform: fields.platform === undefined ? undefined : asObject(fields.platform, `the platform of ${what}`),
  }
}

async function findBlob(find: FindContent, { digest, sizeBytes }: Descriptor, what: string): Promise<Content> {
  const content = await find(`blobs/sha256/${digest.slice('sha256:'.length)}`)
  if (content === undefined) throw imageInvalid(`${what} with digest ${digest} is missing in the image layout`)
  if (content.sizeBytes !== sizeBytes)
    throw imageInvalid(`${what} with digest ${digest} has ${content.sizeBytes} bytes, not ${sizeBytes} as its descriptor says`)
  return content
}

async function blobOf(find: FindContent, value: unknown, what: string): Promise<Buffer> {
  const descriptor = readDescriptor(value, what)
  const bytes = await wholeContent(await findBlob(find, descriptor, what), longestJson, what)
  checkDigest(bytes, descriptor.digest, what)
  return bytes
}

async function chooseManifest(find: FindContent, value: unknown, what: string, depth: number): Promise<{ manifest: JsonObject; digest: string }> {
  const all = asArray(asObject(value, what).manifests, `manifests of ${what}`).map((descriptor) => readDescriptor(descriptor, `an image of ${what}`))
  const fitting = all.filter(({ platform }) => platform === undefined || (platform.os === 'linux' && platform.architecture === ownArchitecture()))
  const [chosen] = fitting
  if (chosen === undefined) {
    const offered = all
      .slice(0, mostOffered)
      .map(({ platform }) => platformWords(platform))
      .join(', ')
    throw imageInvalid(`there is no image for linux/${ownArchitecture()} in it${offered === '' ? '' : `, only for ${offered}`}`)
  }
  // Variants of one processor (arm64/v8) are offered best first; without platforms they are different images.
  if (fitting.length > 1 && fitting.some(({ platform }) => platform === undefined))
    throw imageInvalid(`there are ${fitting.length} images in it; save one alone, with 'skopeo copy' or 'docker save NAME:TAG'`)
  const bytes = await wholeContent(await findBlob(find, chosen, 'the manifest'), longestJson, 'the manifest')
  checkDigest(bytes, chosen.digest, 'the manifest')
  const manifest = asObject(parseJson(bytes, 'the manifest'), 'the manifest')
  // One that is both would be another image to another reader.
  if (manifest.manifests !== undefined && (manifest.layers !== undefined || manifest.config !== undefined))
    throw imageInvalid('the manifest is an index and an image at once')
  if (manifest.manifests === undefined) return { manifest, digest: chosen.digest }
  if (depth === 0) throw imageInvalid('its indexes lie too deep in one another')
  return await chooseManifest(find, manifest, 'an index', depth - 1)
}

function checkDigest(bytes: Buffer, digest: string, what: string) {
  const found = `sha256:${hash('sha256', bytes, 'hex')}`
  if (found !== digest) throw imageInvalid(`${what} has the digest ${found}, not ${digest}`)
}
