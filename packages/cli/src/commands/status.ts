import type { StatusWire } from '@mags/sdk'
import { Command } from 'commander'
import type { CommandDefinition } from '../cli.ts'
import { milliseconds } from '../run/where-it-ran.ts'
import { openSession } from '../server/session.ts'
import { describe } from '../terminal/describe.ts'
import { formatBytes } from '../terminal/format-bytes.ts'

export const statusCommand: CommandDefinition = (cli, done) =>
  new Command('status')
    .summary('show how a job stands')
    .description('Shows how a job stands.')
    .argument('<id>', 'id, name or workspace of the job')
    .option('--json', 'print the answer of the API')
    .action(async (id: string) => {
      const { first: status } = await openSession(cli, (mags) => mags.status(id, { signal: cli.interrupts.requested }))
      if (cli.output.json) await cli.output.data(status)
      else await cli.output.out(describeStatus(status))
      done(0)
    })

export function describeStatus(status: StatusWire): string {
  const durations: [string, number | null][] = [
    ['queue', status.queue_duration_ms],
    ['acquire', status.acquire_duration_ms],
    ['attach', status.attach_duration_ms],
    ['first byte', status.first_byte_duration_ms],
  ]
  const parts = durations.flatMap(([name, value]) => (value == null ? [] : [`${name} ${milliseconds(value)}`]))
  const rows: [string, string | null | undefined][] = [
    ['id', status.request_id],
    ['name', status.name],
    ['status', status.status === 'sleeping' && status.sleep_stage != null ? `sleeping (${status.sleep_stage}) since ${status.slept_at}` : status.status],
    ['exit code', status.exit_code?.toString()],
    ['error', status.error],
    ['persistent', status.persistent ? 'yes' : null],
    ['url', status.url === null ? null : `${status.url} (${status.visibility === 'token' ? 'token, ' : ''}port ${status.port})`],
    ['sandbox', status.vm_id == null ? null : `${status.isolation} ${status.vm_id}`],
    ['image', status.image],
    ['workspace', describeWorkspaceOf(status)],
    ['base', status.base_workspace_id],
    ['saved', status.workspace_unsaved_since == null ? status.synced_at : `not saved since ${status.workspace_unsaved_since}`],
    ['egress', status.egress == null ? null : describeEgress(status.egress)],
    ['sent', status.egress_bytes == null ? null : formatBytes(status.egress_bytes)],
    ['woken', status.woken_at == null ? null : `${status.woken_at} by ${status.wake_reason} in ${milliseconds(status.wake_duration_ms ?? 0)}`],
    ['started', status.started_at],
    ['completed', status.completed_at],
    ['start', status.start_duration_ms == null ? null : `${milliseconds(status.start_duration_ms)}${parts.length === 0 ? '' : ` (${parts.join(', ')})`}`],
    ['script', status.script_duration_ms == null ? null : milliseconds(status.script_duration_ms)],
  ]
  return describe(rows)
}

function describeEgress(egress: NonNullable<StatusWire['egress']>): string {
  if (egress === 'none') return 'none'
  const parts = [
    egress.allow === undefined ? null : `only ${egress.allow.join(', ') || 'nothing'}`,
    egress.deny === undefined ? null : `not ${egress.deny.join(', ')}`,
  ]
  return parts.filter((part) => part !== null).join('; ')
}

/** Such as `proj@4 (326 MB, 12.3 MB uploaded)`. */
function describeWorkspaceOf(status: StatusWire): string | null {
  const { workspace_id: name, workspace_version: version, workspace_size_bytes: sizeBytes, workspace_bytes_uploaded: uploadedBytes } = status
  if (name == null) return null
  const sizes = [...(sizeBytes == null ? [] : [formatBytes(sizeBytes)]), ...(uploadedBytes == null ? [] : [`${formatBytes(uploadedBytes)} uploaded`])]
  return `${version == null || version === 0 ? name : `${name}@${version}`}${sizes.length === 0 ? '' : ` (${sizes.join(', ')})`}`
}
