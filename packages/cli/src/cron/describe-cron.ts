import type { CronRunWire, CronWire } from '@mags/sdk'
import { table } from '../terminal/table.ts'

/** Crons as `mags cron list` shows them. */
export function cronTable(crons: readonly CronWire[]): string {
  const rows = crons.map((cron) => [
    cron.name,
    cron.schedule,
    cron.timezone,
    cron.error === null ? (cron.next_run_at ?? 'disabled') : cron.error,
    cron.last_run === null ? '-' : `${cron.last_run.status} ${cron.last_run.scheduled_for}`,
  ])
  return table(['NAME', 'SCHEDULE', 'ZONE', 'NEXT RUN', 'LAST RUN'], rows)
}

/** Runs as `mags cron runs` shows them. */
export function runTable(runs: readonly CronRunWire[]): string {
  const rows = runs.map((run) => [
    run.scheduled_for,
    run.cause.replace('_', ' '),
    run.status,
    run.exit_code === null ? '-' : String(run.exit_code),
    run.request_id ?? run.reason ?? '-',
  ])
  return table(['DUE', 'WHY', 'STATUS', 'EXIT', 'JOB OR REASON'], rows)
}
