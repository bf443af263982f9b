/** An answer of the gateway itself. */
export interface OwnAnswer {
  readonly status: number
  /** Besides Content-Type, Content-Length and Date. */
  readonly headers: readonly (readonly [name: string, value: string])[]
  readonly contentType: string
  readonly body: string
}

export function jsonAnswer(status: number, body: unknown, headers: OwnAnswer['headers'] = []): OwnAnswer {
  return { status, headers: [['Cache-Control', 'no-store'], ...headers], contentType: 'application/json; charset=utf-8', body: `${JSON.stringify(body)}\n` }
}

export function pageAnswer(status: number, page: string, headers: OwnAnswer['headers'] = []): OwnAnswer {
  return { status, headers: [...pageHeaders, ...headers], contentType: 'text/html; charset=utf-8', body: page }
}

/** The page belongs to the gateway, not to what runs in the sandbox: nobody may frame it, and it loads nothing. */
const pageHeaders: OwnAnswer['headers'] = [
  ['Cache-Control', 'no-store'],
  ['Content-Security-Policy', "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"],
  ['Referrer-Policy', 'no-referrer'],
  ['X-Content-Type-Options', 'nosniff'],
]

/** Location must be a path of the same host. */
export function redirectAnswer(location: string, headers: OwnAnswer['headers'] = []): OwnAnswer {
  const fixed: OwnAnswer['headers'] = [
    ['Cache-Control', 'no-store'],
    ['Referrer-Policy', 'no-referrer'],
    ['Location', location],
  ]
  return { status: 303, headers: [...fixed, ...headers], contentType: 'text/plain; charset=utf-8', body: 'See Location.\n' }
}
