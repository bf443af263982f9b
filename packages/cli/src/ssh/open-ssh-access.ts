import { type Answer, type Mags, MagsApiError, type SshAccessWire } from '@mags/sdk'
import type { Cli } from '../cli.ts'
import { awaitRunning } from '../run/await-running.ts'
import { parseName } from '../workspaces/version-reference.ts'

const sshPort = 22
const finished: ReadonlySet<string> = new Set(['completed', 'error', 'stopped'])
const requestId = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/

/** SSH access to the sandbox of that name, which is woken or, when there is none, made as `mags new` makes it. */
export async function openSshAccess(cli: Cli, mags: Mags, name: string): Promise<Answer<SshAccessWire>> {
  const options = { signal: cli.interrupts.requested }
  try {
    return await mags.enableAccess(name, sshPort, options)
  } catch (error) {
    if (requestId.test(name) || !(await isMissing(mags, name, error))) throw error
  }
  const workspaceId = parseName(name)
  await cli.output.note(`no sandbox '${name}' runs: starting one on the workspace '${name}'`)
  const job = await mags.new(workspaceId, options)
  await awaitRunning(cli, mags, job.requestId)
  return await mags.enableAccess(job.requestId, sshPort, options)
}

/** Nothing has this name, or only what is over. */
async function isMissing(mags: Mags, name: string, error: unknown): Promise<boolean> {
  if (!(error instanceof MagsApiError)) return false
  if (error.status === 404) return true
  if (error.code !== 'job_not_running') return false
  const job = await mags.findJob(name)
  return job === null || finished.has(job.status)
}
