import type { GatewayTarget } from '@mags/protocol'
import type { Logger } from 'pino'
import type { AuthContext, Connection } from 'ssh2'
import { delay } from './delay.ts'
import { isSigned, offeredKey } from './offered-key.ts'
import { disconnectReason, sendDisconnect } from './ssh2-internals.ts'

const requestsMax = 100

export interface Authentication {
  /** Whom a user name and a public key (`ssh-ed25519 AAAA…`) mean here. */
  readonly find: (user: string, publicKey: string) => Promise<GatewayTarget | undefined>
  readonly triesMax: number
  /** Counts a failure; its answer has to wait for so many milliseconds. */
  readonly countFailure: () => number
  /** The connection is gone. */
  readonly closed: AbortSignal
  readonly logger: Logger
  /** After the answer that there were too many tries. */
  readonly end: () => void
}

/** Answers the authentication requests of a connection: public keys only. Settles with the job once a key was proved; never settles when none is. */
export function authenticate(connection: Connection, authentication: Authentication): Promise<GatewayTarget> {
  const { closed, logger } = authentication
  const { promise, resolve } = Promise.withResolvers<GatewayTarget>()
  /** Of this connection: a client asks first and signs then. */
  const answers = new Map<string, Promise<GatewayTarget | undefined>>()
  let tries = 0
  let requests = 0

  const judge = async (request: AuthContext): Promise<'accepted' | 'refused' | 'asked'> => {
    // How clients ask for the list of methods.
    if (request.method === 'none') return 'asked'
    if (request.method !== 'publickey') return 'refused'
    const key = offeredKey(request)
    if (key === undefined) return 'refused'
    const question = `${request.username}\0${key.text}`
    const answer = answers.get(question) ?? authentication.find(request.username, key.text)
    answers.set(question, answer)
    const target = await answer
    if (target === undefined) return 'refused'
    const signed = isSigned(request, key)
    if (signed === false) return 'refused'
    if (signed === true && !closed.aborted) resolve(target)
    return 'accepted'
  }

  const answer = async (request: AuthContext) => {
    // Asking costs no try, and so has a bound of its own.
    if (++requests > requestsMax) return authentication.end()
    let verdict: 'accepted' | 'refused' | 'asked'
    try {
      verdict = await judge(request)
    } catch (error) {
      logger.error({ err: error }, 'ssh: a key could not be looked up')
      verdict = 'asked'
    }
    if (closed.aborted) return
    if (verdict === 'accepted') return request.accept()
    if (verdict === 'refused') {
      const delayMs = authentication.countFailure()
      if (delayMs > 0) await delay(delayMs, closed)
      if (closed.aborted) return
      if (++tries >= authentication.triesMax) {
        sendDisconnect(connection, disconnectReason.protocolError, 'Too many authentication failures')
        return authentication.end()
      }
    }
    request.reject(['publickey'])
  }

  connection.on('authentication', (request) => {
    answer(request).catch((error: unknown) => {
      logger.debug({ err: error }, 'ssh: an authentication could not be answered')
      authentication.end()
    })
  })
  return promise
}
