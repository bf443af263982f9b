import { connectionErrorFrom, MagsApiError, MagsConnectionError, MagsProtocolError } from '../errors.ts'
import type { ApiRequest, Requester } from '../http/requester.ts'
import { parseEvents, type ServerEvent } from '../sse/parse-events.ts'

/** The server sends a comment every 15 s; after three of them are missing the line is dead, though nobody said so. */
const silenceLimitMs = 45_000

/** Opens a stream of events and reads it to its end. Throws MagsConnectionError when it breaks or falls silent. */
export async function* readStream(requester: Requester, request: ApiRequest): AsyncGenerator<ServerEvent> {
  const { response, close } = await requester.open(request)
  let silent = false
  const onSilence = () => {
    silent = true
    close()
  }
  let timer = setTimeout(onSilence, silenceLimitMs)
  try {
    for await (const event of parseEvents(response.body)) {
      clearTimeout(timer)
      // While the reader works on an event nothing is read, so the clock stands still.
      yield event
      timer = setTimeout(onSilence, silenceLimitMs)
    }
  } catch (error) {
    if (request.signal?.aborted) throw request.signal.reason
    if (silent) throw new MagsConnectionError(requester.apiUrl, 'TIMEOUT', `Mags at ${requester.apiUrl} sent nothing for ${silenceLimitMs / 1000} s.`)
    if (error instanceof MagsProtocolError || error instanceof MagsApiError) throw error
    throw connectionErrorFrom(requester.apiUrl, error)
  } finally {
    clearTimeout(timer)
    close()
  }
}

/** The data of an event, which is a JSON object in all of ours. */
export function parseData(event: ServerEvent): Readonly<Record<string, unknown>> {
  try {
    const value: unknown = JSON.parse(event.data)
    if (typeof value === 'object' && value !== null) return value as Record<string, unknown>
  } catch (error) {
    throw new MagsProtocolError(`The data of an event '${event.event}' is not JSON.`, error)
  }
  throw new MagsProtocolError(`The data of an event '${event.event}' is not an object.`)
}
