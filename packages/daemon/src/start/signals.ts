import process from 'node:process'

const stopSignals = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const

/**
 * The first signal that asks for a stop. A second one while the stop runs ends the process at once: what it leaves is freed by the next start.
 */
export function untilSignalled() {
  const { promise, resolve } = Promise.withResolvers<string>()
  let asked = false
  const listener = (signal: NodeJS.Signals) => {
    if (asked) process.exit(130)
    asked = true
    resolve(signal)
  }
  for (const signal of stopSignals) process.on(signal, listener)
  return {
    signalled: promise,
    [Symbol.dispose]() {
      for (const signal of stopSignals) process.off(signal, listener)
    },
  }
}
