import { randomBytes } from 'node:crypto'
import { createConnection } from 'node:net'
import type { Duplex } from 'node:stream'
import { MagsError } from '@mags/protocol'
import { StreamAgentConnection } from './agent-connection.ts'
import type { AgentConnection } from './connection.ts'
import { encodeHello } from './encode-frames.ts'
import { marker, nonceBytes } from './frame-constants.ts'
import { HelloHunter } from './handshake.ts'

export interface ConnectAgentOptions {
  /** For connecting and the handshake together; default 10,000. */
  readonly timeoutMs?: number
}

/**
 * Connects to an agent over a stream or the path of a unix socket and shakes hands. Execs found running are in `liveChannels` and must each be resumed or closed;
 * dials left over are closed here.
 *
 * Rejects with MagsError 'sandbox_failed' when nothing answers in time (its cause has the code of a failed connect, such as ENOENT while the socket is not there
 * yet; trying again is the caller's business) and with AgentProtocolError when what answers is no agent. The stream is then destroyed.
 */
export function connectAgent(target: Duplex | string, options: ConnectAgentOptions = {}): Promise<AgentConnection> {
  const timeoutMs = options.timeoutMs ?? 10_000
  const stream = typeof target === 'string' ? createConnection(target) : target
  const where = typeof target === 'string' ? ` at ${target}` : ''
  const nonce = randomBytes(nonceBytes)
  const hunter = new HelloHunter(nonce)
  const { promise, resolve, reject } = Promise.withResolvers<AgentConnection>()

  const release = () => {
    clearTimeout(timer)
    stream.off('data', onData).off('error', onError).off('end', onEnd).off('close', onEnd)
  }
  const fail = (error: Error) => {
    release()
    // Its late errors have no listener any more.
    stream.on('error', () => undefined)
    stream.destroy()
    reject(error)
  }
  const onError = (error: Error) => fail(new MagsError('sandbox_failed', `the agent${where} cannot be reached: ${error.message}`, { cause: error }))
  const onEnd = () => fail(new MagsError('sandbox_failed', `the agent${where} hung up before it answered`))
  const onData = (chunk: Buffer) => {
    try {
      const found = hunter.push(chunk)
      if (found === undefined) return
      release()
      resolve(new StreamAgentConnection(stream, found.hello, found.rest))
    } catch (error) {
      fail(error instanceof Error ? error : new Error(String(error)))
    }
  }
  const timer = setTimeout(() => fail(new MagsError('sandbox_failed', `the agent${where} did not answer within ${timeoutMs} ms`)), timeoutMs)
  stream.on('data', onData).on('error', onError).on('end', onEnd).on('close', onEnd)
  // A socket that is still connecting keeps it until it is connected.
  stream.write(Buffer.concat([marker, encodeHello(nonce)]))
  return promise
}
