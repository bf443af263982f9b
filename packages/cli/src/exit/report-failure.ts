import { MagsApiError, MagsConnectionError, MagsProtocolError } from '@mags/sdk'
import { CommanderError } from 'commander'
import { Interrupted } from '../terminal/interrupts.ts'
import { BrokenPipe, type Output } from '../terminal/output.ts'
import { CliError, exitCodes } from './cli-error.ts'

interface Failure {
  readonly exitCode: number
  /** Undefined: end without a word. */
  readonly message: string | undefined
  /** What `--json` prints. */
  readonly body: unknown
}

/** The one place where what was thrown becomes text and an exit code. `command` is the one that was asked for. */
export async function reportFailure(error: unknown, output: Output, command: string | undefined): Promise<number> {
  const failure = describe(error, command)
  if (failure.message !== undefined) {
    if (output.json) await output.err(`${JSON.stringify(failure.body)}\n`)
    else await output.fail(failure.message)
  }
  return failure.exitCode
}

function describe(error: unknown, command: string | undefined): Failure {
  if (error instanceof BrokenPipe) return silent(exitCodes.brokenPipe)
  if (error instanceof Interrupted) return silent(error.exitCode)
  if (error instanceof CommanderError) return describeUsage(error, command)
  if (error instanceof CliError) return said(error.exitCode, error.message, error.code)
  if (error instanceof MagsApiError)
    return { ...said(exitCodes.failure, withHint(error), error.code), ...(error.body === undefined ? {} : { body: error.body }) }
  if (error instanceof MagsConnectionError) return said(exitCodes.failure, error.message, 'unreachable')
  if (error instanceof MagsProtocolError) return said(exitCodes.failure, error.message, 'protocol')
  if (error instanceof TypeError && /^MAGS_PORT|http or https address|must not be empty\.$/.test(error.message))
    return said(exitCodes.usage, error.message, 'usage')
  return said(exitCodes.failure, error instanceof Error ? (error.stack ?? error.message) : String(error), 'internal')
}

function describeUsage(error: CommanderError, command: string | undefined): Failure {
  // Help and version are results that commander reports by throwing.
  if (error.exitCode === 0 || error.code === 'commander.help') return silent(exitCodes.ok)
  const words = error.message.replace(/^error: /, '').replace(/\n\(Did you mean (.*?)\?\)$/, ' (did you mean $1?)')
  return said(exitCodes.usage, `${words.replace(/\.+$/, '')}. See '${command === undefined ? 'mags' : `mags ${command}`} --help'.`, 'usage')
}

/** Fields of the API that a flag or an argument of ours sets; empty: the words stand for themselves. */
const flagsOfFields: Readonly<Record<string, string>> = {
  base_workspace_id: '--base',
  cpu: '--cpu',
  digest: '--digest',
  disk: '--disk',
  disk_gb: '--disk',
  domain: '--domain',
  environment: '--env',
  from: '',
  image: '--image',
  ip_lease: '--ip-lease',
  isolation: '--isolation',
  max_retries: '--retries',
  memory: '--memory',
  memory_mb: '--memory',
  name: '--name',
  path: '',
  port: '--port',
  priority: '--priority',
  proxy_port: '--port',
  retry_backoff_seconds: '--backoff',
  schedule: '--schedule',
  script: '',
  ssh_public_keys: '--key',
  startup_command: '--startup-command',
  subdomain: '',
  timeout_seconds: '--timeout',
  timeout: '--timeout',
  timezone: '--timezone',
  to: '',
  vcpus: '--vcpus',
  workspace_id: '--workspace',
  workspace_size_gb: '--workspace-size',
}

/** `disk_gb: at most 100` is for those who write JSON; who typed a command knows it as `--disk`. */
function inFlags(message: string): string {
  const [, field = '', rest = ''] = /^([a-z_]+)(?:\.\d+)?: (.*)$/s.exec(message) ?? []
  const flag = flagsOfFields[field]
  return flag === undefined ? message : flag === '' ? rest : `${flag}: ${rest}`
}

const asSentence = (words: string) => `${words.replace(/\.$/, '')}.`

function withHint(error: MagsApiError): string {
  if (error.status === 401) return `${asSentence(error.message)} Set MAGS_API_TOKEN, or put the token of this server into ~/.mags/config.json.`
  if (error.status === 503 && error.retryAfterSeconds !== undefined) return `${asSentence(inFlags(error.message))} Try again in ${error.retryAfterSeconds} s.`
  return inFlags(error.message)
}

function said(exitCode: number, message: string, code: string): Failure {
  return { exitCode, message, body: { error: message, code } }
}

function silent(exitCode: number): Failure {
  return { exitCode, message: undefined, body: undefined }
}
