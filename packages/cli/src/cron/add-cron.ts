import { type CronOptions, type CronWire, type Mags, MagsApiError } from '@mags/sdk'
import type { Cli } from '../cli.ts'
import { openSession } from '../server/session.ts'

/** Makes a cron; its files go up before. */
export async function addCron(cli: Cli, options: CronOptions, files: readonly string[]): Promise<CronWire> {
  const { first } = await openSession(cli, (mags) => create(cli, mags, { ...options, signal: cli.interrupts.requested }, files))
  return first
}

async function create(cli: Cli, mags: Mags, options: CronOptions, files: readonly string[]): Promise<CronWire> {
  if (files.length === 0) return await mags.cronCreate(options)
  const { uploadPaths } = await import('../run/upload-files.ts')
  const fileIds = (await uploadPaths(cli, mags, files)).map((file) => file.file_id)
  try {
    return await mags.cronCreate({ ...options, fileIds })
  } catch (error) {
    // Refused: nobody will ever ask for them.
    if (error instanceof MagsApiError) await Promise.allSettled(fileIds.map((id) => mags.deleteUploadedFile(id)))
    throw error
  }
}
