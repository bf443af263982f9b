import { setTimeout as delay } from 'node:timers/promises'

const retryDelaysMs = [100, 1000, 5000]

/** A short fault of the database must not leave a job behind that never ends; a long one is for recovery at the next start. Never rejects. */
export async function storeSurely(write: () => Promise<unknown>, onFailed: (error: unknown) => void): Promise<void> {
  for (const delayMs of [...retryDelaysMs, undefined]) {
    try {
      await write()
      return
    } catch (error) {
      onFailed(error)
      if (delayMs !== undefined) await delay(delayMs)
    }
  }
}
