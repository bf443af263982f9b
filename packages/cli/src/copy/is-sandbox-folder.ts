import { type Mags, MagsApiError } from '@mags/sdk'

/** Whether a path in a sandbox is a folder; undefined when nothing is there. */
export async function isSandboxFolder(mags: Mags, job: string, path: string, signal: AbortSignal): Promise<boolean | undefined> {
  try {
    await mags.listFiles(job, path, { limit: 1, signal })
    return true
  } catch (error) {
    if (!(error instanceof MagsApiError)) throw error
    if (error.code === 'not_found') return undefined
    // Something that is not a folder is the caller's mistake in a listing, and no mistake here.
    if (error.code === 'bad_request') return false
    throw error
  }
}
