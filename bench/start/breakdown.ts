import type { BenchClient } from '../kit/client.ts'
import { summarize, table } from '../kit/statistics.ts'

const parts = ['queue_duration_ms', 'acquire_duration_ms', 'attach_duration_ms', 'first_byte_duration_ms', 'start_duration_ms'] as const
type Status = Record<(typeof parts)[number], number>

/** The server's own account of each start, and how far its parts miss the whole. */
export async function breakdown(client: BenchClient, requestIds: readonly string[]): Promise<string> {
  const statuses: Status[] = []
  for (const requestId of requestIds) statuses.push(await client.get<Status>(`/api/v1/mags-jobs/${requestId}/status`))
  const rows = parts.map((part) =>
    summarize(
      part,
      statuses.map((status) => status[part]),
    ),
  )
  const missed = statuses.map((status) =>
    Math.abs(status.start_duration_ms - status.queue_duration_ms - status.acquire_duration_ms - status.attach_duration_ms - status.first_byte_duration_ms),
  )
  return `${table(rows)}\n\nParts and whole differ by at most ${Math.max(...missed).toFixed(3)} ms.`
}
