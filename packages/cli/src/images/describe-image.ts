import type { ImageSourceWire, ImageVersionWire, ImageWire, InspectedImageWire } from '@mags/sdk'
import { describe } from '../terminal/describe.ts'
import { formatBytes } from '../terminal/format-bytes.ts'
import { table } from '../terminal/table.ts'

export function imageTable(images: readonly ImageWire[]): string {
  const rows = images.map((image) => [
    image.default ? `${image.name} (default)` : image.name,
    image.os,
    formatBytes(image.size_bytes),
    shortDigest(image.digest),
    String(image.versions),
    describeSource(image.source),
    image.created_at,
  ])
  return table(['NAME', 'SYSTEM', 'SIZE', 'DIGEST', 'VERSIONS', 'FROM', 'CREATED'], rows)
}

export function describeImage(image: InspectedImageWire): string {
  const { jobs, crons } = image.named_by
  const head = describe([
    ['name', image.default ? `${image.name} (default)` : image.name],
    ['named by', [...jobs.map((job) => `job ${job}`), ...crons.map((cron) => `cron ${cron}`)].join(', ') || null],
  ])
  return head + image.versions.map(describeVersion).join('')
}

function describeVersion(version: ImageVersionWire): string {
  const { workspaces, jobs, microvms, other_accounts: others } = version.used_by
  const users = [
    ...workspaces.map((name) => `workspace ${name}`),
    ...jobs.map((id) => `job ${id}`),
    ...microvms.map((name) => `microVM ${name}`),
    ...(others > 0 ? [`${others} of other accounts`] : []),
  ]
  const environment = Object.entries(version.environment).map(([name, value]) => `${name}=${value}`)
  return `\n${describe([
    ['digest', version.current ? `${version.digest} (newest)` : version.digest],
    ['system', version.os],
    ['size', formatBytes(version.size_bytes)],
    ['created', version.created_at],
    ['from', describeSource(version.source)],
    ['init', version.init ?? 'none'],
    ['env', environment.join(' ') || null],
    ['folder', version.working_directory],
    ['command', version.source.command?.join(' ')],
    ['used by', users.join(', ') || 'nothing'],
  ])}`
}

function describeSource({ kind, reference, digest }: ImageSourceWire): string {
  return `${kind} ${reference}${digest === null || reference.includes('@') ? '' : ` (${shortDigest(digest)})`}`
}

export const shortDigest = (digest: string) => digest.replace(/^(sha256:[0-9a-f]{12})[0-9a-f]+$/, '$1')
