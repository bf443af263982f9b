import { type JobsClient, type Mags, MagsApiError, type PageOptions } from '@mags/sdk'

/** Jobs of a template by its id or name; of one that was deleted by its id. Throws what the server says when neither template nor jobs are there. */
export async function listOfTemplate(mags: Mags, template: string, options: PageOptions): ReturnType<JobsClient['list']> {
  let failure: unknown
  const { id } = await mags.templates.get(template, { signal: options.signal }).catch((error: unknown) => {
    if (!(error instanceof MagsApiError && error.status === 404)) throw error
    failure = error
    return { id: template }
  })
  const answer = await mags.jobs.list({ ...options, templateId: id })
  if (answer.total === 0 && failure !== undefined) throw failure
  return answer
}
