import type { Duplex } from 'node:stream'
import { setTimeout as pause } from 'node:timers/promises'
import { type GatewayLease, type GatewayTarget, MagsError } from '@mags/protocol'
import type { Logger } from 'pino'
import type { AbortSlot } from '../abort-slot.ts'
import { errorAnswer, failureAnswer, waitingAnswer } from '../answers/error-answer.ts'
import type { OwnAnswer } from '../answers/own-answer.ts'
import type { OpenJob } from '../jobs/open-job.ts'
import type { HttpLimits } from '../limits.ts'
import { type ClientRequest, isNavigation } from '../request/client-request.ts'
import { UpstreamConnection } from './upstream-connection.ts'

type Limits = Pick<HttpLimits, 'maxHeldPerJob' | 'heldMs' | 'pageMs' | 'connectMs' | 'listenMs' | 'recentMs'> & { readonly logger: Logger }

/**
 * A connection to the job's port, once it is awake and something listens there; or the answer for a request that has waited long enough. Who waits is counted, and the wake goes on without them.
 */
export async function reachJob(
  limits: Limits,
  job: OpenJob,
  target: GatewayTarget,
  request: ClientRequest,
  abort: AbortSlot,
): Promise<UpstreamConnection | OwnAnswer> {
  const lease = job.lease
  if (lease !== undefined) {
    const first = await tryConnect(limits, lease, target, abort)
    if (first !== undefined) return new UpstreamConnection(first)
    if (!isRecent(limits, lease, target)) return notListening(request, target)
  }
  if (job.held >= limits.maxHeldPerJob) {
    return errorAnswer(request, 503, 'no_capacity', `too many requests wait for ${target.name}; try again in a moment`, [['Retry-After', '2']])
  }
  job.held++
  try {
    return await wait(limits, job, target, request, abort)
  } finally {
    job.held--
  }
}

async function wait(limits: Limits, job: OpenJob, target: GatewayTarget, request: ClientRequest, abort: AbortSlot) {
  const wasAwake = job.lease !== undefined
  const stopped = new AbortController()
  abort.set(() => stopped.abort(new Error('the request is over')))
  const timer = setTimeout(() => stopped.abort(timedOut), isNavigation(request) ? limits.pageMs : limits.heldMs)
  try {
    const lease = await until(job.opened, stopped.signal)
    const socket = await connectWhenListening(limits, lease, target, stopped.signal, wasAwake)
    return socket === undefined ? notListening(request, target) : new UpstreamConnection(socket)
  } catch (error) {
    if (error === timedOut) return tookTooLong(limits, job, target, request)
    if (!(error instanceof MagsError) && !stopped.signal.aborted) limits.logger.warn({ err: error, requestId: target.requestId }, 'a job could not be reached')
    return failureAnswer(request, error, target.name)
  } finally {
    clearTimeout(timer)
    abort.set(undefined)
  }
}

const timedOut = new Error('waited long enough')

/** Undefined when nothing listens, also after it had the time to begin. */
async function connectWhenListening(
  limits: Limits,
  lease: GatewayLease,
  target: GatewayTarget,
  signal: AbortSignal,
  tried: boolean,
): Promise<Duplex | undefined> {
  const deadline = Date.now() + limits.listenMs
  let pauseMs = 25
  for (let first = !tried; ; first = true) {
    if (first) {
      const socket = await until(tryConnect(limits, lease, target), signal, (late) => late?.destroy())
      if (socket !== undefined) return socket
    }
    if (!isRecent(limits, lease, target) || Date.now() >= deadline) return undefined
    await pause(Math.min(pauseMs, Math.max(1, deadline - Date.now())), undefined, { signal }).catch(() => signal.throwIfAborted())
    pauseMs = Math.min(1000, pauseMs * 2)
  }
}

/** Undefined when nothing listens there. Rejects with MagsError. */
async function tryConnect(limits: Limits, lease: GatewayLease, target: GatewayTarget, abort?: AbortSlot): Promise<Duplex | undefined> {
  const connecting = lease.connect(target.port)
  const bound = AbortSignal.timeout(limits.connectMs)
  try {
    const socket = await until(connecting, bound, (late) => late.destroy())
    if (abort?.isDone) socket.destroy()
    return socket
  } catch (error) {
    if (error instanceof MagsError && error.code === 'not_listening') return undefined
    if (bound.aborted)
      throw new MagsError('sandbox_failed', `port ${target.port} in ${target.name} did not take a connection within ${limits.connectMs / 1000} s`)
    throw error
  }
}

function isRecent(limits: Limits, lease: GatewayLease, target: GatewayTarget): boolean {
  return Date.now() - Math.max(target.startedAt ?? 0, lease.wokenAt ?? 0) < limits.recentMs
}

/** What `promise` settles with, or the signal's reason; `onLate` gets a value that nobody waits for any more. */
function until<T>(promise: Promise<T>, signal: AbortSignal, onLate?: (value: T) => void): Promise<T> {
  return new Promise((resolve, reject) => {
    let over = signal.aborted
    if (over) reject(signal.reason)
    const stop = () => {
      over = true
      reject(signal.reason)
    }
    signal.addEventListener('abort', stop, { once: true })
    promise.then(
      (value) => {
        signal.removeEventListener('abort', stop)
        if (over) onLate?.(value)
        else resolve(value)
      },
      (error: unknown) => {
        signal.removeEventListener('abort', stop)
        reject(error)
      },
    )
  })
}

function notListening(request: ClientRequest, { name, port }: GatewayTarget): OwnAnswer {
  const words = `nothing listens on port ${port} in ${name}; start a server there, or open another port with: mags url ${name} <port>`
  return errorAnswer(request, 502, 'not_listening', words)
}

function tookTooLong(limits: Limits, job: OpenJob, { name, port, state }: GatewayTarget, request: ClientRequest): OwnAnswer {
  if (isNavigation(request)) {
    if (job.lease === undefined && state === 'starting')
      return waitingAnswer(`${name} is starting`, 'This page opens by itself as soon as the sandbox answers.')
    if (job.lease === undefined) return waitingAnswer(`${name} is waking up`, 'The sandbox was asleep. This page opens by itself as soon as it answers.')
    return waitingAnswer(`${name} is starting`, `Nothing listens on port ${port} yet. This page opens by itself as soon as the server answers.`)
  }
  return errorAnswer(request, 504, 'wake_failed', `job ${name} was not ready within ${limits.heldMs / 1000} s`, [['Retry-After', '5']])
}
