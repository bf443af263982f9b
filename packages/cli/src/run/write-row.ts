import { type LogRowWire, logRowBytes } from '@mags/sdk'
import type { Output } from '../terminal/output.ts'

/** A row of a job's log to where the script wrote it; what the server has to say goes to standard error. */
export async function writeRow(output: Output, row: Pick<LogRowWire, 'source' | 'message' | 'base64' | 'partial'>): Promise<void> {
  if (row.source === 'stdout') await output.out(logRowBytes(row))
  else if (row.source === 'stderr') await output.err(logRowBytes(row))
  else await output.note(row.message)
}
