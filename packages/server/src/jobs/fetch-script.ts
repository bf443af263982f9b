import { isUtf8 } from 'node:buffer'
import { lookup as dnsLookup, type LookupAddress } from 'node:dns'
import { isIP } from 'node:net'
import { MagsError, scriptLimitBytes } from '@mags/protocol'
import { Agent, type Dispatcher, request } from 'undici'
import { isPublicAddress } from './public-address.ts'

type Lookup = (name: string, options: { all: true }, callback: (error: NodeJS.ErrnoException | null, addresses: LookupAddress[]) => void) => void

export interface FetchScriptOptions {
  /** Which addresses may be connected to; default those of the public internet. */
  readonly mayConnect?: (address: string) => boolean
  /** Resolves a name; default the system's resolver. */
  readonly lookup?: Lookup
  readonly timeoutMs?: number
}

const maxRedirects = 5

/**
 * Reads the script at an http(s) address. The addresses a name resolves to are checked by the lookup that the connection itself uses, so a name that
 * resolves differently a second time gains nothing; redirects are followed here, each as if it were the first. Rejects with
 * MagsError('script_fetch_failed') that says why.
 */
export async function fetchScript(address: string, options: FetchScriptOptions = {}): Promise<string> {
  const { mayConnect = isPublicAddress, timeoutMs = 10_000 } = options
  const signal = AbortSignal.timeout(timeoutMs)
  await using agent = disposable(new Agent({ connect: { lookup: guardedLookup(options.lookup ?? dnsLookup, mayConnect), timeout: timeoutMs }, pipelining: 0 }))
  try {
    let url = checkedUrl(address, mayConnect)
    for (let redirects = 0; ; redirects++) {
      const answer = await request(url, {
        dispatcher: agent.dispatcher,
        signal,
        headers: { accept: '*/*', 'accept-encoding': 'identity', 'user-agent': 'mags' },
      })
      const location = redirectOf(answer)
      if (location === undefined) return await readScript(answer)
      await answer.body.dump({ limit: 64 * 1024 })
      if (redirects === maxRedirects) throw failure(`more than ${maxRedirects} redirects`)
      url = checkedUrl(new URL(location, url).href, mayConnect)
    }
  } catch (error) {
    if (error instanceof MagsError) throw error
    if (signal.aborted) throw failure(`not read within ${timeoutMs / 1000} s`, error)
    throw failure(reasonOf(error), error)
  }
}

function checkedUrl(address: string, mayConnect: (address: string) => boolean): URL {
  const url = URL.canParse(address) ? new URL(address) : undefined
  if (url === undefined || !['http:', 'https:'].includes(url.protocol)) throw failure('the address must begin with http:// or https://')
  if (url.username !== '' || url.password !== '') throw failure('the address must not contain a user name or password')
  // No lookup happens for a literal address, so it is checked here.
  const host = url.hostname.replace(/^\[|\]$/g, '')
  if (isIP(host) !== 0 && !mayConnect(host)) throw failure(`${host} is not a public address`)
  return url
}

function guardedLookup(lookup: Lookup, mayConnect: (address: string) => boolean) {
  return (
    name: string,
    options: { all?: boolean | undefined },
    callback: (error: Error | null, address: string | LookupAddress[], family?: number) => void,
  ) => {
    lookup(name, { all: true }, (error, addresses) => {
      if (error) return callback(error, [])
      const refused = addresses.find(({ address }) => !mayConnect(address))
      if (refused) return callback(failure(`${name} resolves to ${refused.address}, which is not a public address`), [])
      const [first] = addresses
      if (first === undefined) return callback(failure(`${name} has no address`), [])
      if (options.all) callback(null, addresses)
      else callback(null, first.address, first.family)
    })
  }
}

function redirectOf(answer: Dispatcher.ResponseData): string | undefined {
  if (![301, 302, 303, 307, 308].includes(answer.statusCode)) return undefined
  const { location } = answer.headers
  if (typeof location !== 'string') throw failure(`HTTP status ${answer.statusCode} without a new address`)
  return location
}

async function readScript(answer: Dispatcher.ResponseData): Promise<string> {
  if (answer.statusCode !== 200) {
    await answer.body.dump({ limit: 64 * 1024 })
    throw failure(`HTTP status ${answer.statusCode}`)
  }
  const chunks: Buffer[] = []
  let bytes = 0
  for await (const chunk of answer.body as AsyncIterable<Buffer>) {
    bytes += chunk.length
    if (bytes > scriptLimitBytes) throw failure('it is over 1 MiB')
    chunks.push(chunk)
  }
  const script = Buffer.concat(chunks)
  if (!isUtf8(script) || script.includes(0)) throw failure('it is not UTF-8 text')
  if (script.length === 0) throw failure('it is empty')
  return script.toString('utf8')
}

const failure = (reason: string, cause?: unknown) => new MagsError('script_fetch_failed', `script: could not be read from its address: ${reason}`, { cause })

function reasonOf(error: unknown): string {
  if (!(error instanceof Error)) return String(error)
  if (error instanceof AggregateError && error.errors[0] instanceof Error) return error.errors[0].message
  return error.message
}

function disposable(dispatcher: Agent): AsyncDisposable & { readonly dispatcher: Agent } {
  return { dispatcher, [Symbol.asyncDispose]: () => dispatcher.destroy() }
}
