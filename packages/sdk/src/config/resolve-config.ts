import { readFileSync, statSync } from 'node:fs'
import { homedir } from 'node:os'
import { join } from 'node:path'

export const defaultApiUrl = 'http://127.0.0.1:4747'

export interface ResolvedConfig {
  /** Without a slash at the end. */
  readonly apiUrl: string
  readonly apiToken: string | undefined
  /** Where the address comes from; `port` is MAGS_PORT, with which the server of this machine listens. */
  readonly apiUrlSource: 'option' | 'environment' | 'port' | 'file' | 'default'
  readonly configFile: string
  /** What is wrong with the configuration file, in words; it is then not used. */
  readonly warning: string | undefined
}

export interface ConfigOptions {
  /** null: none, wherever one may be found. */
  readonly apiToken?: string | null | undefined
  readonly apiUrl?: string | undefined
  readonly env?: Readonly<Record<string, string | undefined>>
}

/**
 * Finds server and token: options, then MAGS_API_URL and MAGS_API_TOKEN (or MAGS_TOKEN), then MAGS_PORT on this machine, then
 * `~/.mags/config.json` (`{"api_url", "api_token"}`), then the default address. A file that other users can read is not used: its token
 * may be known to them. Throws TypeError when the address is not an http(s) URL, or MAGS_PORT not a port.
 */
export function resolveConfig(options: ConfigOptions = {}): ResolvedConfig {
  const env = options.env ?? process.env
  const configFile = join(env.HOME || homedir(), '.mags', 'config.json')
  const fromEnv = { apiUrl: env.MAGS_API_URL || undefined, apiToken: env.MAGS_API_TOKEN || env.MAGS_TOKEN || undefined }
  const named = options.apiUrl ?? fromEnv.apiUrl
  const local = named === undefined ? localUrl(env.MAGS_PORT) : undefined
  const explicit = { apiUrl: named ?? local, apiToken: options.apiToken === undefined ? fromEnv.apiToken : options.apiToken }
  const complete = explicit.apiUrl !== undefined && explicit.apiToken !== undefined
  const file = complete ? {} : readConfigFile(configFile)
  // A token of the file belongs to the address of the file: it is not sent to another one.
  const fileTokenFits = explicit.apiUrl === undefined || sameAddress(explicit.apiUrl, file.apiUrl ?? defaultApiUrl)
  const apiUrlSource =
    options.apiUrl !== undefined
      ? 'option'
      : fromEnv.apiUrl !== undefined
        ? 'environment'
        : local !== undefined
          ? 'port'
          : file.apiUrl !== undefined
            ? 'file'
            : 'default'
  return {
    apiUrl: checkedUrl(explicit.apiUrl ?? file.apiUrl ?? defaultApiUrl, apiUrlSource),
    apiToken: explicit.apiToken === undefined && fileTokenFits ? file.apiToken : (explicit.apiToken ?? undefined),
    apiUrlSource,
    configFile,
    warning: file.warning,
  }
}

/** The server of this machine that listens on `port`; undefined where none is named (0 lets the server choose). */
function localUrl(port: string | undefined): string | undefined {
  if (port === undefined || port === '' || port === '0') return undefined
  if (!/^[1-9]\d{0,4}$/.test(port) || Number(port) > 65_535) throw new TypeError(`MAGS_PORT must be a port number, 0 to 65535, not ${JSON.stringify(port)}.`)
  const url = new URL(defaultApiUrl)
  url.port = port
  return url.origin
}

interface ConfigFile {
  readonly apiUrl?: string
  readonly apiToken?: string
  readonly warning?: string
}

function readConfigFile(path: string): ConfigFile {
  try {
    const { mode, uid } = statSync(path)
    if ((mode & 0o077) !== 0) return { warning: `${path} is not used: other users can read it. Repair it with: chmod 600 ${path}` }
    const ownUid = process.getuid?.()
    if (ownUid !== undefined && uid !== ownUid) return { warning: `${path} is not used: it belongs to another user.` }
    const value: unknown = JSON.parse(readFileSync(path, 'utf8'))
    if (typeof value !== 'object' || value === null) return { warning: `${path} is not used: it does not hold a JSON object.` }
    const { api_url: apiUrl, api_token: apiToken } = value as { api_url?: unknown; api_token?: unknown }
    return {
      ...(typeof apiUrl === 'string' && apiUrl !== '' ? { apiUrl } : {}),
      ...(typeof apiToken === 'string' && apiToken !== '' ? { apiToken } : {}),
    }
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return {}
    return { warning: `${path} is not used: ${error instanceof Error ? error.message : String(error)}` }
  }
}

function checkedUrl(text: string, source: ResolvedConfig['apiUrlSource']): string {
  const url = URL.canParse(text) ? new URL(text) : undefined
  if (url === undefined || (url.protocol !== 'http:' && url.protocol !== 'https:')) {
    const place = source === 'environment' ? 'MAGS_API_URL' : source === 'file' ? 'api_url in ~/.mags/config.json' : 'apiUrl'
    throw new TypeError(`${place} must be an http or https address such as ${defaultApiUrl}, not ${JSON.stringify(text)}.`)
  }
  // Both `https://host` and the address with the prefix are commonly written down.
  return `${url.origin}${url.pathname}`.replace(/\/+$/, '').replace(/\/api\/v[12]$/, '')
}

function sameAddress(left: string, right: string): boolean {
  return URL.canParse(left) && URL.canParse(right) && originOf(left) === originOf(right)
}

function originOf(text: string): string {
  const { protocol, hostname, port } = new URL(text)
  return `${protocol}//${isLoopback(hostname) ? 'loopback' : hostname}:${port}`
}

/** Whether a host name (as URL has it) is this machine itself. */
export function isLoopback(hostname: string): boolean {
  return hostname === 'localhost' || hostname === '[::1]' || /^127(\.\d{1,3}){3}$/.test(hostname)
}
