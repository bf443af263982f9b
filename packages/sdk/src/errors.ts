/** The server answered with an error. */
export class MagsApiError extends Error {
  /** HTTP status. */
  readonly status: number
  /** Stable code such as `not_found`; `http_<status>` when the answer did not come from Mags (a proxy's page, say). */
  readonly code: string
  /** What the server said beyond the words, where it did. */
  readonly details: unknown
  /** From the `Retry-After` header. */
  readonly retryAfterSeconds: number | undefined
  /** The answer as it came, for clients that pass it on. */
  readonly body: unknown

  constructor(answer: { status: number; code: string; message: string; details?: unknown; retryAfterSeconds?: number | undefined; body?: unknown }) {
    super(answer.message)
    this.name = 'MagsApiError'
    this.status = answer.status
    this.code = answer.code
    this.details = answer.details
    this.retryAfterSeconds = answer.retryAfterSeconds
    this.body = answer.body
  }
}

/** No (whole) answer came: nothing listens, the name is unknown, the line was cut, or the time ran out. */
export class MagsConnectionError extends Error {
  /** The address that was tried. */
  readonly apiUrl: string
  /** The system's code (`ECONNREFUSED`, `ENOTFOUND`, …), `TIMEOUT`, or `UNKNOWN`. */
  readonly code: string
  /** True when the request cannot have reached the server, so that sending it again does nothing twice. */
  readonly unsent: boolean

  constructor(apiUrl: string, code: string, message: string, cause?: unknown) {
    super(message, cause === undefined ? undefined : { cause })
    this.name = 'MagsConnectionError'
    this.apiUrl = apiUrl
    this.code = code
    this.unsent = unsentCodes.has(code)
  }
}

/** The server sent something that is not the protocol: an over-long event, broken JSON. */
export class MagsProtocolError extends Error {
  constructor(message: string, cause?: unknown) {
    super(message, cause === undefined ? undefined : { cause })
    this.name = 'MagsProtocolError'
  }
}

const unsentCodes: ReadonlySet<string> = new Set(['ECONNREFUSED', 'ENOTFOUND', 'EAI_AGAIN', 'EHOSTUNREACH', 'ENETUNREACH', 'UND_ERR_CONNECT_TIMEOUT'])

/** Turns what fetch or a socket threw into words with the address and the next step. */
export function connectionErrorFrom(apiUrl: string, thrown: unknown): MagsConnectionError {
  const code = systemCode(thrown)
  return new MagsConnectionError(apiUrl, code, `${whatFailed(apiUrl, code, thrown)} ${nextStep(code)}`, thrown)
}

function whatFailed(apiUrl: string, code: string, thrown: unknown): string {
  if (code === 'ECONNREFUSED') return `No Mags server answers at ${apiUrl} (connection refused).`
  if (code === 'ENOTFOUND' || code === 'EAI_AGAIN') return `The host name in ${apiUrl} cannot be resolved.`
  if (code === 'ECONNRESET' || code === 'EPIPE' || code === 'UND_ERR_SOCKET') return `The connection to ${apiUrl} was cut before the answer was whole.`
  return `Mags at ${apiUrl} cannot be reached (${innermostMessage(thrown)}).`
}

function nextStep(code: string): string {
  if (code === 'ECONNRESET' || code === 'EPIPE' || code === 'UND_ERR_SOCKET') return 'Try again; the log of the server says why if it stopped.'
  if (code === 'ENOTFOUND' || code === 'EAI_AGAIN') return 'Check MAGS_API_URL and the name service.'
  return "Start one with 'mags server', or set MAGS_API_URL to the address of one that runs."
}

function systemCode(thrown: unknown): string {
  for (let current = thrown, depth = 0; current instanceof Error && depth < 5; current = current.cause, depth += 1) {
    const { code } = current as { code?: unknown }
    if (typeof code === 'string') return code
  }
  return 'UNKNOWN'
}

function innermostMessage(thrown: unknown): string {
  let current = thrown
  for (let depth = 0; current instanceof Error && current.cause instanceof Error && depth < 5; depth += 1) current = current.cause
  return current instanceof Error ? current.message : String(current)
}
