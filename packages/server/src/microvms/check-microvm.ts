import {
  type CreateMicrovmRequest,
  type HostApi,
  type HostCapabilities,
  type ImageInfo,
  leastMicrovmMemoryMb,
  MagsError,
  microvmDefaults,
} from '@mags/protocol'
import { readSshPublicKey } from '../access/ssh-public-key.ts'
import { checkIpLease } from '../ip-leases/check-ip-lease.ts'
import { checkIsolation } from '../jobs/check-available.ts'

/** What a microVM is made of, by what was asked for and what this server has. */
export interface MicrovmPlan {
  readonly cpu: number
  readonly memoryMb: number
  readonly diskGb: number
  readonly image: ImageInfo
  readonly isolation: 'vm' | 'container'
  readonly init: boolean
  /** Type and key each. */
  readonly authorizedKeys: readonly string[]
  readonly warnings: readonly string[]
}

const gibibyte = 2 ** 30

/** Rejects with MagsError 'out_of_range' (cpu, memory, disk), 'not_available' (image, isolation, ip_lease), 'bad_request' (a key); each names the member. */
export async function checkMicrovm(host: HostApi, asked: CreateMicrovmRequest): Promise<MicrovmPlan> {
  const capabilities = host.capabilities()
  const { maxVcpus, maxMemoryMb, maxDiskGb } = capabilities
  const cpu = inRange('cpu', asked.cpu, { least: 1, most: maxVcpus, usual: microvmDefaults.cpu, unit: '' })
  const memoryMb = inRange('memory', asked.memory, { least: leastMicrovmMemoryMb, most: maxMemoryMb, usual: microvmDefaults.memoryMb, unit: ' MB' })
  const diskGb = inRange('disk', asked.disk, { least: 1, most: maxDiskGb, usual: microvmDefaults.diskGb, unit: ' GB' })
  const authorizedKeys = readKeys(asked.ssh_public_keys ?? [])
  const wanted = asked.isolation ?? 'vm'
  const isolation = wanted !== 'auto' ? wanted : capabilities.vm.available ? 'vm' : 'container'
  checkIsolation(isolation, capabilities)
  const image = await findImage(host, capabilities, asked.image ?? microvmDefaults.image)
  if (image.sizeBytes > diskGb * gibibyte) {
    const needed = Math.ceil((image.sizeBytes / gibibyte) * 10) / 10
    throw new MagsError('out_of_range', `disk: ${diskGb} GB is less than image ${image.name} needs (${needed} GB)`)
  }
  if (asked.ip_lease) checkIpLease(capabilities)
  const init = isolation === 'vm' && image.init !== undefined
  return { cpu, memoryMb, diskGb, image, isolation, init, authorizedKeys, warnings: init ? [] : [whyNoInit(isolation, image)] }
}

/** What is not given is as usual, or as much as there is. */
function inRange(
  field: string,
  value: number | null | undefined,
  bounds: { readonly least: number; readonly most: number; readonly usual: number; readonly unit: string },
): number {
  const { least, most, usual, unit } = bounds
  if (value == null) return Math.min(usual, most)
  if (Number.isInteger(value) && value >= least && value <= most) return value
  throw new MagsError(
    'out_of_range',
    `${field}: must be a whole number from ${least.toLocaleString('en-US')} to ${most.toLocaleString('en-US')}${unit} on this server`,
  )
}

function readKeys(lines: readonly string[]): readonly string[] {
  const keys = lines.map((line, index) => {
    try {
      return readSshPublicKey(line).key
    } catch (error) {
      if (!(error instanceof MagsError)) throw error
      throw new MagsError('bad_request', `ssh_public_keys.${index}: ${error.message.replace(/^public_key: /, '')}`, { cause: error })
    }
  })
  return [...new Set(keys)]
}

async function findImage(host: HostApi, { images }: HostCapabilities, name: string): Promise<ImageInfo> {
  const image = images.includes(name) ? await host.images.find(name) : undefined
  if (image !== undefined) return image
  const short = name.slice(0, 64)
  throw new MagsError(
    'not_available',
    `image: ${JSON.stringify(short)} is not an image of this server; it has ${images.join(', ')}. ` +
      (short === microvmDefaults.image
        ? `An operator makes it with 'mags image build ${short}', or brings it with 'mags image import'`
        : "'mags image build' and 'mags image import' make others"),
  )
}

function whyNoInit(isolation: 'vm' | 'container', { name }: ImageInfo): string {
  const why = isolation === 'container' ? 'in a container the init of the image does not run' : `image ${name} has no init`
  return `${why}, so services do not start by themselves; SSH, exec and the URL work`
}
