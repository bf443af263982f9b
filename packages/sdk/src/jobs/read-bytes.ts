import { connectionErrorFrom, MagsConnectionError } from '../errors.ts'
import type { ApiRequest, OpenStream, Requester } from '../http/requester.ts'

const silenceLimitMs = 60_000

/**
 * Reads the bytes of an answer that is open. Throws MagsConnectionError when they end too early or nothing comes for a minute, and the
 * reason of the request's signal. Leaving the iteration early closes the connection.
 */
export async function* readBytes(requester: Requester, request: ApiRequest, { response, close }: OpenStream): AsyncGenerator<Uint8Array> {
  let silent = false
  const onSilence = () => {
    silent = true
    close()
  }
  let timer = setTimeout(onSilence, silenceLimitMs)
  try {
    for await (const part of response.body) {
      clearTimeout(timer)
      yield part
      timer = setTimeout(onSilence, silenceLimitMs)
    }
  } catch (error) {
    if (request.signal?.aborted) throw request.signal.reason
    if (silent) throw new MagsConnectionError(requester.apiUrl, 'TIMEOUT', `Mags at ${requester.apiUrl} sent nothing for ${silenceLimitMs / 1000} s.`)
    throw connectionErrorFrom(requester.apiUrl, error)
  } finally {
    clearTimeout(timer)
    close()
  }
}
