import { setTimeout as delay } from 'node:timers/promises'

/** Whether a promise settles in time; it must not reject. */
export async function settlesWithin(promise: Promise<unknown>, timeoutMs: number): Promise<boolean> {
  const cancel = new AbortController()
  const timeout = delay(timeoutMs, false, { signal: cancel.signal }).catch(() => false)
  const settled = await Promise.race([promise.then(() => true), timeout])
  cancel.abort()
  return settled
}
