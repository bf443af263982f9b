import { isAlive } from '../recover/process-identity.ts'
import { type OpenedRouter, type RouterPlan, withResolver } from './router.ts'

/** Looked at this often; a resolver of an earlier daemon is not our child and tells us nothing when it ends. */
const intervalMs = 2_000

/** Starts the resolver again when it died (out of memory, a person). The function returned stops watching and resolves when no restart is under way. */
export function watchResolver(plan: RouterPlan, record: OpenedRouter['record']): () => Promise<void> {
  let current = record
  let check: Promise<void> = Promise.resolve()
  let busy = false
  const look = async () => {
    if (await isAlive(current.resolver.process)) return
    plan.logger.warn({ log: `${plan.runDir}/resolver.log` }, 'the name server of the sandboxes died and is started again')
    current = await withResolver(plan, current)
  }
  const timer = setInterval(() => {
    if (busy) return
    busy = true
    check = look()
      .catch((error: unknown) => plan.logger.error({ err: error }, 'the name server of the sandboxes does not start'))
      .finally(() => {
        busy = false
      })
  }, intervalMs)
  timer.unref()
  return async () => {
    clearInterval(timer)
    await check
  }
}
