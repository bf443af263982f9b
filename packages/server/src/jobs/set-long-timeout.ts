const longestMs = 2 ** 31 - 1

/** `setTimeout` for any time: Node's own fires at once when given more than 24.8 days. Returns what cancels it. */
export function setLongTimeout(action: () => void, delayMs: number): () => void {
  let timer: NodeJS.Timeout
  const arm = (restMs: number) => {
    timer = setTimeout(() => (restMs > longestMs ? arm(restMs - longestMs) : action()), Math.min(restMs, longestMs))
  }
  arm(Math.max(0, delayMs))
  return () => clearTimeout(timer)
}
