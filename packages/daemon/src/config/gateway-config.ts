import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { MagsError } from '@mags/protocol'
import { type Environment, list, wholeNumber } from './settings.ts'

/** How jobs are reached from outside. */
export interface GatewayConfig {
  readonly host: string
  /** Of the jobs' URLs; 0: any that is free. */
  readonly port: number
  /** The operator named the port. */
  readonly portIsSet: boolean
  /** The jobs' URLs are `<subdomain>.<apps domain>`. */
  readonly appsDomain: string
  /** What clients put before and behind that, such as `https://apps.example.org`; derived from port and domain when not set. */
  readonly appsUrl: string | undefined
  /** PEM files; both or none. */
  readonly tls: { readonly cert: string; readonly key: string } | undefined
  /** Addresses and blocks whose X-Forwarded headers are believed. */
  readonly trustedProxies: readonly string[]
  readonly ssh: {
    /** What clients are told to connect to. */
    readonly publicHost: string
    /** Where the user name picks the sandbox; 0: any that is free. */
    readonly sharedPort: number
    readonly sharedPortIsSet: boolean
    /** First of the ports that jobs get for themselves. */
    readonly portFirst: number
  }
}

export const defaultGatewayPort = 4780
export const defaultSshPort = 4722

/** Throws MagsError 'bad_request' naming the setting and the rule. `api`: where the API listens; with a port of 0 the others default to 0, too. */
export function readGatewayConfig(environment: Environment, api: { readonly host: string; readonly port: number }): GatewayConfig {
  const host = environment.MAGS_GATEWAY_HOST || api.host
  return {
    host,
    port: wholeNumber(environment, 'MAGS_GATEWAY_PORT', api.port === 0 ? 0 : defaultGatewayPort, 0, 65_535),
    portIsSet: Boolean(environment.MAGS_GATEWAY_PORT),
    ...readAppsUrl(environment),
    tls: readTls(environment),
    trustedProxies: list(environment.MAGS_TRUSTED_PROXIES),
    ssh: {
      publicHost: environment.MAGS_SSH_HOST || (isAnyAddress(host) ? '127.0.0.1' : host),
      sharedPort: wholeNumber(environment, 'MAGS_SSH_PORT', api.port === 0 ? 0 : defaultSshPort, 0, 65_535),
      sharedPortIsSet: Boolean(environment.MAGS_SSH_PORT),
      portFirst: wholeNumber(environment, 'MAGS_SSH_FIRST_PORT', 40_000, 1024, 55_000),
    },
  }
}

/** The address of a job without its subdomain, when the operator has not said it. */
export function appsUrlOf({ appsDomain, appsUrl, tls }: GatewayConfig, port: number): string {
  if (appsUrl !== undefined) return appsUrl
  const usual = tls === undefined ? 80 : 443
  return `${tls === undefined ? 'http' : 'https'}://${appsDomain}${port === usual ? '' : `:${port}`}`
}

function readAppsUrl({ MAGS_APPS_URL: text }: Environment): Pick<GatewayConfig, 'appsDomain' | 'appsUrl'> {
  if (!text) return { appsDomain: 'apps.localhost', appsUrl: undefined }
  const url = URL.canParse(text) ? new URL(text) : undefined
  const named = url !== undefined && /^https?:$/.test(url.protocol) && /^[a-z0-9-]+(\.[a-z0-9-]+)*$/.test(url.hostname) && !/^[\d.]+$/.test(url.hostname)
  if (url === undefined || !named || url.pathname !== '/' || url.search !== '' || url.username !== '' || url.hash !== '') {
    throw new MagsError('bad_request', `MAGS_APPS_URL: an address with a host name and no path, such as https://apps.example.org, not ${JSON.stringify(text)}`)
  }
  return { appsDomain: url.hostname, appsUrl: url.origin }
}

function readTls({ MAGS_TLS_CERT: cert, MAGS_TLS_KEY: key }: Environment): GatewayConfig['tls'] {
  if (!cert && !key) return undefined
  if (!cert || !key) throw new MagsError('bad_request', 'MAGS_TLS_CERT and MAGS_TLS_KEY: PEM files, both or none')
  for (const [name, file] of [
    ['MAGS_TLS_CERT', cert],
    ['MAGS_TLS_KEY', key],
  ] as const) {
    try {
      readFileSync(file)
    } catch (error) {
      throw new MagsError('bad_request', `${name}: ${file} cannot be read: ${(error as Error).message}`, { cause: error })
    }
  }
  return { cert, key }
}

const isAnyAddress = (host: string) => host === '0.0.0.0' || host === '::'

/** Stable over restarts, so that host keys and cookies stay good. */
export const hostKeyFileOf = (dataDir: string) => join(dataDir, 'ssh_host_ed25519_key')
