import { closeSync, openSync, readSync } from 'node:fs'
import { type FollowedRow, type Mags, MagsApiError, type RunOptions, type StatusWire } from '@mags/sdk'
import type { Cli } from '../cli.ts'
import { exitCodes } from '../exit/cli-error.ts'
import { openSession } from '../server/session.ts'
import { awaitRunning } from './await-running.ts'
import { followJob } from './follow-job.ts'
import { saySaved } from './say-saved.ts'
import { describeWhere, sayWhereItRan } from './where-it-ran.ts'
import { writeRow } from './write-row.ts'

export interface RunRequest {
  readonly script: string
  readonly options: RunOptions
  /** Files of this machine that go along. */
  readonly files: readonly string[]
  readonly detach: boolean
  /** A persistent job's port is opened to the web. */
  readonly url?: boolean
}

const defaultPort = 8080

/** `mags run`: submits the script and shows what becomes of it. Returns the exit code. */
export async function runJob(cli: Cli, request: RunRequest): Promise<number> {
  const { output } = cli
  const options = { ...request.options, idempotencyKey: newKey() }
  const { mags, first: job } = await openSession(cli, (client) => submit(cli, client, request, options))
  for (const warning of job.warnings ?? []) await output.note(`warning: ${warning}`)
  if (request.detach) {
    await (output.json ? output.data(job) : output.out(`${job.requestId}\n`))
    return exitCodes.ok
  }
  if (request.options.persistent) return await handOver(cli, mags, job.requestId, request)
  if (output.json) return await collect(cli, mags, job.requestId)
  const exitCode = await followToEnd(cli, mags, job.requestId, options.workspaceId !== undefined)
  await sayWhereItRan(cli, mags, job.requestId)
  if (options.workspaceId !== undefined) await saySaved(cli, mags, job.requestId)
  return exitCode
}

/** A job that the user interrupts has its workspace saved too. */
async function followToEnd(cli: Cli, mags: Mags, id: string, hasWorkspace: boolean): Promise<number> {
  try {
    return await followJob(cli, mags, id, (row) => writeRow(cli.output, row))
  } catch (error) {
    if (hasWorkspace && cli.interrupts.requested.aborted) await saySaved(cli, mags, id)
    throw error
  }
}

async function submit(cli: Cli, mags: Mags, { script, files }: RunRequest, options: RunOptions) {
  if (files.length === 0) return await mags.run(script, options)
  const { uploadPaths } = await import('./upload-files.ts')
  const uploaded = await uploadPaths(cli, mags, files)
  const fileIds = uploaded.map((file) => file.file_id)
  try {
    return await mags.run(script, { ...options, fileIds })
  } catch (error) {
    // Refused: nobody will ever ask for them.
    if (error instanceof MagsApiError) await Promise.allSettled(fileIds.map((id) => mags.deleteUploadedFile(id)))
    throw error
  }
}

/** Unique, not secret. Without the platform's cryptography: loading it takes longer than the server takes to answer. */
function newKey(): string | undefined {
  const bytes = Buffer.alloc(16)
  try {
    const source = openSync('/dev/urandom', 'r')
    readSync(source, bytes)
    closeSync(source)
    return bytes.toString('hex')
  } catch {
    // A system without it: the client library makes one.
    return undefined
  }
}

/** A persistent job: id and address on standard output once its script runs, and how to go on for who watches. */
async function handOver(cli: Cli, mags: Mags, id: string, { url, options }: RunRequest): Promise<number> {
  const { output } = cli
  let status: StatusWire = await awaitRunning(cli, mags, id)
  if (url) {
    const access = await mags.enableAccess(id, options.port ?? defaultPort, { signal: cli.interrupts.requested })
    status = { ...status, url: access.url }
  }
  if (output.json) await output.data(status)
  else await output.out(`${id}\n${status.url === null ? '' : `${status.url}\n`}`)
  if (status.exit_code !== null && status.exit_code !== 0) await output.note(`the script ended with exit code ${status.exit_code}: mags logs ${id}`)
  await output.aside(describeWhere(status))
  await output.aside(`it stays: 'mags exec ${status.name} <command>', 'mags ssh ${status.name}', 'mags logs -f ${status.name}', 'mags stop ${status.name}'`)
  return exitCodes.ok
}

/** `--json`: the status after the end, with the rows of the log. */
async function collect(cli: Cli, mags: Mags, id: string): Promise<number> {
  const logs: Omit<FollowedRow, 'cursor'>[] = []
  const exitCode = await followJob(cli, mags, id, async ({ cursor: _cursor, ...row }) => {
    logs.push(row)
  })
  await cli.output.data({ ...(await mags.status(id)), logs })
  return exitCode
}
