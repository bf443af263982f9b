import type { OutputSink } from '@mags/protocol'
import type { AgentConnection, AgentExec, AgentExecRequest, AgentExit, AgentOutput, AgentStream } from '../agent/connection.ts'

/** Bytes of each stream that are safe in the sink. */
export type SafeOutput = Readonly<Record<AgentStream, number>>

/**
 * The script of a sandbox, over as many connections to the agent as its life has; its output goes on without loss or repeat.
 *
 *     followed ──hold──▶ held ──letGo──▶ let go ──takeUp──▶ followed
 *         │  ▲───resume───┘ └───────lost──────┴──▶ ended
 *         └──its first process ended, connection lost──▶ ended
 */
export class ScriptRun {
  /** As of an agent's program; undefined when the agent knows nothing of a script. */
  readonly exit: Promise<AgentExit | undefined>
  readonly program: string
  readonly #exited = Promise.withResolvers<AgentExit | undefined>()
  readonly #sink: OutputSink
  readonly #safe: Record<AgentStream, number>
  readonly #taking = new Set<Promise<unknown>>()
  #exec: AgentExec | undefined
  /** Stands for the connection whose output counts. */
  #turn: object | undefined
  #held: PromiseWithResolvers<void> | undefined

  private constructor(program: string, sink: OutputSink, safe: SafeOutput) {
    this.program = program
    this.#sink = sink
    this.#safe = { ...safe }
    this.exit = this.#exited.promise
    this.exit.catch(() => undefined)
  }

  static start(agent: AgentConnection, request: AgentExecRequest, sink: OutputSink): ScriptRun {
    const script = new ScriptRun(request.argv[0] ?? '', sink, { stdout: 0, stderr: 0 })
    script.#follow((output) => agent.exec(request, output))
    return script
  }

  /** One that an earlier connection started, maybe of an earlier daemon; its output goes on behind what is safe once `takeUp` is called. */
  static found(safe: SafeOutput, sink: OutputSink): ScriptRun {
    return new ScriptRun('its script', sink, safe)
  }

  /** Nothing when it is let go. */
  signal(signal: number) {
    this.#exec?.signal(signal)
  }

  /** Takes no more output; settles when what it has taken is safe. */
  async hold(): Promise<void> {
    this.#held ??= Promise.withResolvers()
    await Promise.allSettled(this.#taking)
  }

  /** Goes on after `hold`, over the same connection. */
  resume() {
    this.#held?.resolve()
    this.#held = undefined
  }

  /** After `hold`, as its connection is closed on purpose: what was not taken comes again after `takeUp`. */
  letGo() {
    this.#exec = undefined
    this.#turn = undefined
    this.#held = undefined
  }

  /** Its sandbox is gone. One that is followed hears that from its connection, after the last output. */
  lost(reason: string) {
    if (this.#turn === undefined || this.#held !== undefined) this.#exited.reject(new Error(reason))
  }

  /** Goes on over a new connection. Other programs that it finds there had their ends in the last one: they are closed. */
  takeUp(agent: AgentConnection) {
    // The script is the first program of its sandbox, so it has the lowest number of all that still live.
    const [script, ...others] = agent.liveChannels
      .filter(({ kind }) => kind === 'exec')
      .map(({ channel }) => channel)
      .sort((a, b) => a - b)
    for (const channel of others) agent.resumeExec(channel, { stdout: 0, stderr: 0 }, () => undefined).close()
    if (script === undefined) this.#exited.resolve(undefined)
    else this.#follow((output) => agent.resumeExec(script, this.#safe, output))
  }

  #follow(open: (output: AgentOutput) => AgentExec) {
    const turn = {}
    this.#turn = turn
    const exec = open(async (source, offset, bytes) => {
      while (this.#turn === turn && this.#held !== undefined) await this.#held.promise
      // Not acknowledged: the sandbox keeps it.
      if (this.#turn !== turn) return await new Promise<never>(() => undefined)
      return await this.#take(source, offset, bytes)
    })
    this.#exec = exec
    exec.exit.then(
      (exit) => this.#turn === turn && this.#exited.resolve(exit),
      (error: unknown) => this.#turn === turn && this.#held === undefined && this.#exited.reject(error),
    )
  }

  #take(source: AgentStream, offset: number, bytes: Buffer): Promise<undefined | 'discard'> {
    const taking = this.#sink({ source, offset, bytes }).then((verdict) => {
      this.#safe[source] = offset + bytes.length
      return verdict
    })
    this.#taking.add(taking)
    const taken = () => void this.#taking.delete(taking)
    taking.then(taken, taken)
    return taking
  }
}
