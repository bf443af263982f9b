import { type HostCapabilities, type IsolationWish, MagsError, type SubmitJobRequest } from '@mags/protocol'

/** Refuses what this server cannot do: rejects with MagsError that names the field and what there is instead. */
export function checkAvailable(request: SubmitJobRequest, host: HostCapabilities, has: { readonly files: boolean }): void {
  if (request.file_ids.length > 0 && !has.files) throw notYet('file_ids', 'uploaded files')
  if (request.no_sleep && !request.persistent) throw new MagsError('bad_request', 'no_sleep: needs persistent to be true')
  if (request.workspace_id != null && request.workspace_id === request.base_workspace_id)
    throw new MagsError('bad_request', 'base_workspace_id: must be another workspace than workspace_id; leave it out to go on with the workspace as it is')
  checkBound('vcpus', request.vcpus, host.maxVcpus)
  checkBound('memory_mb', request.memory_mb, host.maxMemoryMb)
  checkBound('disk_gb', request.disk_gb, host.maxDiskGb)
  checkIsolation(request.isolation, host)
}

/** Throws MagsError('not_available') when this host does not have that wall. */
export function checkIsolation(wish: IsolationWish, host: HostCapabilities): void {
  if (wish === 'auto') return
  const wall = host[wish]
  if (!wall.available) throw new MagsError('not_available', `isolation: "${wish}" cannot be had on this server: ${wall.detail}`)
}

/** The image of a job; rejects with MagsError when there is no such image. */
export function chooseImage(request: Pick<SubmitJobRequest, 'image' | 'rootfs_type'>, host: HostCapabilities): string {
  const { image, rootfs_type: alias } = request
  if (image !== undefined && alias !== undefined && image !== alias)
    throw new MagsError('bad_request', 'rootfs_type: is another name of image; give one of them')
  const wanted = image ?? alias ?? host.defaultImage
  if (host.images.includes(wanted)) return wanted
  const field = image === undefined && alias !== undefined ? 'rootfs_type' : 'image'
  throw new MagsError('bad_request', `${field}: ${JSON.stringify(wanted)} is not an image of this server; it has ${host.images.join(', ')}`)
}

/** The digest that workspaces are pinned to. */
export function digestOf(image: string, host: HostCapabilities): string {
  const digest = host.imageDigests[image]
  if (digest === undefined) throw new MagsError('not_available', `image: ${image} cannot have workspaces, because this server does not know its digest`)
  return digest
}

function checkBound(field: string, value: number | undefined, max: number): void {
  if (value !== undefined && value > max) throw new MagsError('bad_request', `${field}: at most ${max.toLocaleString('en-US')} on this server`)
}

const notYet = (field: string, what: string) => new MagsError('not_available', `not available yet: ${field}: this server does not do ${what}`)
