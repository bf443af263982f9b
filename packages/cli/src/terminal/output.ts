/** Nobody reads our standard output any more (`mags … | head -1`). */
export class BrokenPipe extends Error {
  constructor() {
    super('standard output was closed by its reader')
    this.name = 'BrokenPipe'
  }
}

interface Stream {
  readonly isTTY?: boolean
  write(bytes: string | Uint8Array, done: (error?: Error | null) => void): boolean
  on(event: 'error', listener: (error: Error) => void): unknown
}

/**
 * Standard output and error. A write settles when the bytes have left us, so a slow reader slows us down. Standard output that nobody
 * reads rejects with {@link BrokenPipe}; the same on standard error is ignored.
 */
export class Output {
  readonly stdoutIsTerminal: boolean
  readonly stderrIsTerminal: boolean
  /** Data and errors as JSON, and no notes beside them. */
  json = false
  readonly #stdout: Stream
  readonly #stderr: Stream
  readonly #dims: boolean

  constructor(streams: { stdout: Stream; stderr: Stream }, env: Readonly<Record<string, string | undefined>>) {
    this.#stdout = streams.stdout
    this.#stderr = streams.stderr
    this.stdoutIsTerminal = streams.stdout.isTTY === true
    this.stderrIsTerminal = streams.stderr.isTTY === true
    // https://no-color.org: any value that is not empty.
    this.#dims = this.stderrIsTerminal && !env.NO_COLOR && env.TERM !== 'dumb'
    // Failures reach the writer through its callback; without a listener the event would end the process.
    streams.stdout.on('error', () => undefined)
    streams.stderr.on('error', () => undefined)
  }

  out(bytes: string | Uint8Array): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#stdout.write(bytes, (error) => {
        if (!error) resolve()
        else reject((error as NodeJS.ErrnoException).code === 'EPIPE' ? new BrokenPipe() : error)
      })
    })
  }

  err(bytes: string | Uint8Array): Promise<void> {
    return new Promise((resolve) => {
      this.#stderr.write(bytes, () => resolve())
    })
  }

  /** One JSON value on standard output. */
  async data(value: unknown): Promise<void> {
    await this.out(`${JSON.stringify(value)}\n`)
  }

  /** Something the user should know, beside the data: `mags: …` on standard error, dimmed on a terminal. */
  async note(text: string): Promise<void> {
    if (!this.json) await this.err(this.#dimmed(`mags: ${printable(text)}`))
  }

  /** A note that is only worth its line when somebody watches. */
  async aside(text: string): Promise<void> {
    if (this.stderrIsTerminal && !this.json) await this.err(this.#dimmed(printable(text)))
  }

  /** Why we end. */
  async fail(text: string): Promise<void> {
    await this.err(`mags: ${printable(text)}\n`)
  }

  #dimmed(line: string): string {
    return this.#dims ? `\u001b[2m${line}\u001b[22m\n` : `${line}\n`
  }
}

/** Our own lines may quote what a server or a sandbox sent: control characters in it must not steer the terminal. */
export function printable(text: string): string {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is looked for.
  return text.replace(/[\u0000-\u0008\u000b-\u001f\u007f-\u009f]/g, (character) => (character === '\r' ? '' : '\ufffd'))
}
