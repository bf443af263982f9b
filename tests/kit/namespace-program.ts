import { type ChildProcess, execFile, spawn } from 'node:child_process'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'

const probeFile = fileURLToPath(new URL('./network-probe.ts', import.meta.url))
const runFile = promisify(execFile)

/** Where a program runs: the path of a network namespace, or the host's. */
export type Place = string | 'host'

/** Programs put between the namespace and the probe, such as `setpriv --reuid 65534`. */
export type Wrapper = readonly string[]

function commandLine(place: Place, wrapper: Wrapper, program: readonly string[]): [string, string[]] {
  const [first = '', ...rest] = place === 'host' ? [...wrapper, ...program] : ['nsenter', `--net=${place}`, ...wrapper, ...program]
  return [first, rest]
}

/** Runs any program in a namespace to its end; its standard output. */
export async function runIn(place: Place, ...program: string[]): Promise<string> {
  const { stdout } = await runFile(...commandLine(place, [], program))
  return stdout.trim()
}

/** Feeds a script to `nft -f -` in a namespace. */
export async function nftIn(place: Place, script: string) {
  const run = runFile(...commandLine(place, [], ['nft', '-f', '-']))
  run.child.stdin?.end(script)
  await run
}

/** Runs a one-shot command of the probe in a namespace; its only line. */
export async function probe(place: Place, command: string, args: readonly (string | number)[], wrapper: Wrapper = []): Promise<string> {
  const { stdout } = await runFile(...commandLine(place, wrapper, [process.execPath, probeFile, command, ...args.map(String)]))
  return stdout.trim()
}

/** A command of the probe that stays, ended by disposal. */
export class Resident implements AsyncDisposable {
  readonly lines: string[] = []
  readonly #child: ChildProcess
  readonly #waiting = new Set<() => void>()
  readonly #ended: Promise<void>

  constructor(child: ChildProcess) {
    this.#child = child
    this.#ended = new Promise((resolve) => child.once('close', () => resolve()))
    if (child.stdout) {
      createInterface({ input: child.stdout }).on('line', (line) => {
        this.lines.push(line)
        for (const wake of this.#waiting) wake()
      })
    }
  }

  get pid() {
    return this.#child.pid ?? 0
  }

  /** Resolves once a line says this; rejects after 20 s. */
  async says(text: string): Promise<void> {
    if (this.lines.includes(text)) return
    const { promise, resolve, reject } = Promise.withResolvers<void>()
    const look = () => {
      if (this.lines.includes(text)) resolve()
    }
    const timer = setTimeout(() => reject(new Error(`"${text}" did not come; got ${JSON.stringify(this.lines)}`)), 20_000)
    this.#waiting.add(look)
    try {
      await promise
    } finally {
      clearTimeout(timer)
      this.#waiting.delete(look)
    }
  }

  tell(line: string) {
    this.#child.stdin?.write(`${line}\n`)
  }

  async [Symbol.asyncDispose]() {
    this.#child.kill('SIGKILL')
    await this.#ended
  }
}

/** Starts a staying command of the probe and waits for its first line. */
export async function startProbe(place: Place, command: string, args: readonly (string | number)[], firstLine = 'ready'): Promise<Resident> {
  const resident = startIn(place, [process.execPath, probeFile, command, ...args.map(String)])
  await resident.says(firstLine)
  return resident
}

export function startIn(place: Place, program: readonly string[]): Resident {
  return new Resident(spawn(...commandLine(place, [], program), { stdio: ['pipe', 'pipe', 'inherit'] }))
}
