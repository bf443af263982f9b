import { type HostApi, type ImageInfo, MagsError } from '@mags/protocol'

/** All versions of a name, the newest first. Throws MagsError 'not_found'. */
export async function findVersions(host: HostApi, name: string): Promise<ImageInfo[]> {
  const versions = (await host.images.list()).filter((image) => image.name === name)
  if (versions.length > 0) return versions
  const { images } = host.capabilities()
  throw new MagsError('not_found', `no image ${JSON.stringify(name.slice(0, 64))}; there is ${images.join(', ') || 'none'}`)
}
