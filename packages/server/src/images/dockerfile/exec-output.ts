import { type ExecRequest, MagsError, type RunningSandbox } from '@mags/protocol'

const keptWordsBytes = 2000

/** Standard output of a program in a sandbox as it comes; it waits for who reads. Fails when the program does, with the end of what it said. Leaving early ends it. */
export async function* execOutput(sandbox: RunningSandbox, request: ExecRequest, what: string): AsyncGenerator<Uint8Array> {
  const stop = new AbortController()
  let words = ''
  let waiting: { readonly bytes: Uint8Array; readonly taken: () => void }[] = []
  let changed = Promise.withResolvers<void>()
  let ended: { readonly fault: unknown } | undefined
  const onOutput = async (source: 'stdout' | 'stderr', bytes: Uint8Array) => {
    if (source === 'stderr') {
      words = (words + Buffer.from(bytes).toString('utf8')).slice(-keptWordsBytes)
      return
    }
    if (stop.signal.aborted) return
    // A copy: the bytes are only ours until the promise settles, and a promise that waits holds up the program.
    const taken = Promise.withResolvers<void>()
    waiting.push({ bytes: Buffer.from(bytes), taken: taken.resolve })
    changed.resolve()
    await taken.promise
  }
  void sandbox.exec(request, onOutput, stop.signal).then(
    (exit) => {
      const fault = exit.exitCode === 0 ? undefined : new MagsError('sandbox_failed', `${what}: ${words.trim() || exit.reason || `exit code ${exit.exitCode}`}`)
      ended = { fault }
      changed.resolve()
    },
    (error: unknown) => {
      ended = { fault: error }
      changed.resolve()
    },
  )
  try {
    for (;;) {
      const batch = waiting
      waiting = []
      for (const { bytes, taken } of batch) {
        yield bytes
        taken()
      }
      if (waiting.length > 0) continue
      if (ended?.fault !== undefined) throw ended.fault
      if (ended) return
      await changed.promise
      changed = Promise.withResolvers<void>()
    }
  } finally {
    stop.abort()
    for (const { taken } of waiting) taken()
  }
}
