import { MagsApiError } from '../errors.ts'
import type { TransportResponse } from './transport.ts'

const maxErrorBytes = 256 * 1024

/** Reads an error answer. One that is not ours (a proxy's HTML page) becomes a sentence with status and address. */
export async function readApiError(response: TransportResponse, url: URL): Promise<MagsApiError> {
  const body = parseObject(await readBounded(response.body))
  const retryAfterSeconds = parseRetryAfter(response.header('retry-after'))
  const common = { status: response.status, retryAfterSeconds, body }
  if (body !== undefined && typeof body.error === 'string') {
    const code = typeof body.code === 'string' ? body.code : `http_${response.status}`
    return new MagsApiError({ ...common, code, message: body.error, details: body.details })
  }
  const location = response.header('location')
  const message =
    response.status >= 300 && response.status < 400 && location !== undefined
      ? `${url.origin} sends on to ${location}; set MAGS_API_URL to the final address.`
      : `${url.origin} answered HTTP ${response.status} to ${url.pathname}, not with words of Mags. Check that MAGS_API_URL is the address of a Mags server.`
  return new MagsApiError({ ...common, code: `http_${response.status}`, message })
}

/** Seconds from now, from either form of the header (RFC 9110, 10.2.3). */
export function parseRetryAfter(header: string | undefined, nowMs: number = Date.now()): number | undefined {
  if (header === undefined) return undefined
  if (/^\d+$/.test(header.trim())) return Number(header)
  const date = Date.parse(header)
  return Number.isNaN(date) ? undefined : Math.max(0, Math.ceil((date - nowMs) / 1000))
}

async function readBounded(body: AsyncIterable<Uint8Array>): Promise<string> {
  const parts: Uint8Array[] = []
  let size = 0
  for await (const part of body) {
    parts.push(part)
    size += part.length
    if (size > maxErrorBytes) break
  }
  return Buffer.concat(parts).toString('utf8')
}

function parseObject(text: string): Record<string, unknown> | undefined {
  try {
    const value: unknown = JSON.parse(text)
    return typeof value === 'object' && value !== null && !Array.isArray(value) ? { ...value } : undefined
  } catch {
    return undefined
  }
}
