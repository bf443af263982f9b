import type { JobDetailsWire, JobRunWire, JobStatusWire, JobWire, TemplateRevisionWire, TemplateWire } from '@mags/sdk'
import { milliseconds } from '../run/where-it-ran.ts'
import { describe } from '../terminal/describe.ts'
import { table } from '../terminal/table.ts'

/** Jobs as `mags job list` shows them. */
export function jobTable(jobs: readonly JobWire[]): string {
  const rows = jobs.map((job) => [job.name, `${job.vcpus} × ${job.memory_mb} MB`, job.stateful ? 'stateful' : '-', job.id, job.created_at])
  return table(['NAME', 'SIZE', 'KEEPS', 'ID', 'CREATED'], rows)
}

export function runTable(runs: readonly JobRunWire[]): string {
  const rows = runs.map((run) => [
    run.status,
    run.exit_code === null ? '-' : String(run.exit_code),
    run.duration_ms === null ? '-' : milliseconds(run.duration_ms),
    run.id,
    run.started_at ?? '-',
  ])
  return table(['STATUS', 'EXIT', 'TOOK', 'ID', 'STARTED'], rows)
}

export function describeJob(job: JobDetailsWire): string {
  return describe([
    ['id', job.id],
    ['name', job.name],
    ['for', job.description],
    ['size', `${job.vcpus} vCPU, ${job.memory_mb} MB`],
    ['workspace', job.stateful ? job.workspace_id : null],
    ['environment', Object.keys(job.environment).join(', ') || null],
    ['created', job.created_at],
    ['updated', job.updated_at === job.created_at ? null : job.updated_at],
    ['script', job.script.trimEnd()],
  ])
}

export function describeJobStatus(status: JobStatusWire): string {
  return describe([
    ['id', status.request_id],
    ['name', status.name],
    ['status', status.status.replace('_', ' ')],
    ['attempt', status.max_retries === 0 ? null : `${status.attempt} of ${status.max_retries + 1}${status.retry_at === null ? '' : `, at ${status.retry_at}`}`],
    ['exit code', status.exit_code?.toString()],
    ['error', status.error_message],
    ['sandbox', status.vm_info?.vm_id],
    ['address', [status.vm_info?.ipv4_address, status.vm_info?.ipv6_address].filter(Boolean).join(', ') || null],
    ['url', status.proxy_url],
    ['started', status.started_at],
    ['completed', status.completed_at],
    ['script', status.script_duration_ms === null ? null : milliseconds(status.script_duration_ms)],
  ])
}

/** Templates as `mags template list` shows them. */
export function templateTable(templates: readonly TemplateWire[]): string {
  const rows = templates.map((template) => [
    template.name,
    String(template.latest_revision.revision),
    `${template.default_vcpus} × ${template.default_memory_mb} MB`,
    template.id,
    template.updated_at,
  ])
  return table(['NAME', 'REVISION', 'SIZE', 'ID', 'UPDATED'], rows)
}

export function revisionTable(revisions: readonly TemplateRevisionWire[]): string {
  return table(
    ['REVISION', 'CREATED', 'COMMENT'],
    revisions.map((revision) => [String(revision.revision), revision.created_at, revision.comment ?? '-']),
  )
}

export function describeTemplate(template: TemplateWire): string {
  const { latest_revision: latest } = template
  return describe([
    ['id', template.id],
    ['name', template.name],
    ['for', template.description],
    ['size', `${template.default_vcpus} vCPU, ${template.default_memory_mb} MB`],
    ['revision', `${latest.revision} of ${latest.created_at}${latest.comment === null ? '' : `: ${latest.comment}`}`],
    ['environment', Object.keys(latest.environment).join(', ') || null],
    ['created', template.created_at],
    ['script', latest.script.trimEnd()],
  ])
}
