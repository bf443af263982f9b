import { MagsError } from '@mags/protocol'
import { addressesOf, isPublicAddress } from './registry-way.ts'

/** An image in a registry. */
export interface RegistryReference {
  /** As skopeo(1) takes it, `docker://…`. */
  readonly address: string
  /** Host and, perhaps, port that are asked. */
  readonly registry: string
  /** Without TLS; only for registries that the operator named so. */
  readonly plainHttp: boolean
}

const transports = /^(oci|oci-archive|docker-archive|docker-daemon|dir|containers-storage|ostree|sif|tarball|atomic)(:|$)/
/** Distribution reference grammar; lower case but for the tag. */
const grammar =
  /^(?:((?:[a-z0-9](?:[a-z0-9.-]*[a-z0-9])?|\[[0-9a-f:]+\])(?::[0-9]{1,5})?)\/)?[a-z0-9]+(?:[._/-]+[a-z0-9]+)*(?::[A-Za-z0-9_][A-Za-z0-9._-]{0,127})?(?:@sha256:[0-9a-f]{64})?$/
const hub = 'registry-1.docker.io'

/** Reads what a client named. `allowed` is the operator's MAGS_IMAGE_REGISTRIES. Throws MagsError 'bad_request'. */
export function readRegistryReference(reference: string, allowed: readonly string[]): RegistryReference {
  const name = reference.startsWith('docker://') ? reference.slice('docker://'.length) : reference
  if (reference === name && transports.test(reference))
    throw new MagsError(
      'bad_request',
      `reference: files of the server cannot be named; send the image itself ('mags image import FILE' does), or name one in a registry: docker://HOST/NAME:TAG`,
    )
  const match = name.length > 512 ? null : grammar.exec(name)
  if (match === null)
    throw new MagsError(
      'bad_request',
      `reference: ${JSON.stringify(reference.slice(0, 200))} names no image in a registry; it is HOST/NAME:TAG, such as docker.io/library/alpine:3.20`,
    )
  // A first part without a dot or a port is a part of the name.
  const first = match[1]
  const host = first !== undefined && (/[.:]/.test(first) || first === 'localhost') ? first : undefined
  const registry = host === undefined || host === 'docker.io' || host === 'index.docker.io' ? hub : host
  return { address: `docker://${name}`, registry, plainHttp: allowed.includes(`http://${registry}`) }
}

/** Refuses registries in this machine's own networks, which a client has no business to ask through the server, unless the operator allows them. Throws MagsError 'forbidden'. */
export async function checkRegistryAddress({ registry }: RegistryReference, allowed: readonly string[]): Promise<void> {
  if (allowed.includes(registry) || allowed.includes(`http://${registry}`)) return
  const host = registry.replace(/:[0-9]+$/, '').replace(/^\[(.*)\]$/, '$1')
  // A name that is not found here may be known to a proxy; then that one asks.
  const addresses = await addressesOf(host).catch(() => [])
  if (addresses.every(isPublicAddress)) return
  throw inPrivateNetwork(registry)
}

/** Why a host is not asked. */
export function inPrivateNetwork(host: string): MagsError {
  return new MagsError('forbidden', `reference: ${host} is in a private network; the operator allows registries there with MAGS_IMAGE_REGISTRIES=${host}`)
}
