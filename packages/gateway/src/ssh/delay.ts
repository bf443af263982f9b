/** Settles when the signal is aborted; dispose it so that a signal of long life does not remember it. */
export function whenAborted(signal: AbortSignal): { readonly aborted: Promise<undefined> } & Disposable {
  const { promise, resolve } = Promise.withResolvers<undefined>()
  const listener = () => resolve(undefined)
  if (signal.aborted) listener()
  else signal.addEventListener('abort', listener, { once: true })
  return { aborted: promise, [Symbol.dispose]: () => signal.removeEventListener('abort', listener) }
}

/** Settles after so many milliseconds, or when the signal is aborted. */
export function delay(ms: number, abort?: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const done = () => {
      clearTimeout(timer)
      abort?.removeEventListener('abort', done)
      resolve()
    }
    const timer = setTimeout(done, ms)
    if (abort?.aborted === true) done()
    else abort?.addEventListener('abort', done, { once: true })
  })
}
