import { type Duplex, duplexPair } from 'node:stream'
import { MagsError } from '@mags/protocol'
import type {
  AgentConnection,
  AgentExec,
  AgentExecRequest,
  AgentExit,
  AgentFileRequest,
  AgentIdentity,
  AgentLiveChannel,
  AgentOutput,
  AgentStats,
} from '../../agent/connection.ts'
import { notListening } from '../../agent/request-error.ts'
import { fakeFileWork } from './fake-file-work.ts'
import type { FakeMachine } from './fake-machine.ts'
import type { FakeProcess } from './fake-process.ts'

/**
 * An AgentConnection to a {@link FakeMachine}.
 *
 *     open ──close()──▶ closed (undefined)
 *       └──machine died──▶ closed (Error with its reason)
 */
export class FakeAgent implements AgentConnection {
  readonly liveChannels: readonly AgentLiveChannel[]
  readonly closed: Promise<Error | undefined>
  /** What `identity` was called with, in order. */
  readonly identities: AgentIdentity[] = []
  readonly #machine: FakeMachine
  readonly #dials = new Set<Duplex>()
  readonly #closing = Promise.withResolvers<Error | undefined>()
  /** Rejects when the connection ends; raced against whatever waits. */
  readonly #lost: Promise<never>
  #over: Error | undefined

  constructor(machine: FakeMachine) {
    this.#machine = machine
    this.closed = this.#closing.promise
    this.liveChannels = [...machine.processes.values()].map(({ channel, exited }) => ({ channel, kind: 'exec', exited, pid: 100 + channel }))
    const { promise, reject } = Promise.withResolvers<never>()
    promise.catch(() => undefined)
    this.#lost = promise
    void this.closed.then(() => reject(this.#over))
    void machine.died.then((reason) => this.#end(new MagsError('sandbox_failed', reason), false))
  }

  exec(request: AgentExecRequest, output: AgentOutput): AgentExec {
    if (request.argv.length === 0) throw new MagsError('bad_request', 'the command is empty')
    if (this.#over) return this.#running(undefined, output, { stdout: 0, stderr: 0 })
    return this.#running(this.#machine.start(request), output, { stdout: 0, stderr: 0 })
  }

  file(request: AgentFileRequest, output: AgentOutput): AgentExec {
    const start = () => this.#machine.run({ argv: ['file', request.op, request.path], env: {}, stdin: request.op === 'write' }, fakeFileWork(request))
    return this.#running(this.#over ? undefined : start(), output, { stdout: 0, stderr: 0 })
  }

  resumeExec(channel: number, safe: { stdout: number; stderr: number }, output: AgentOutput): AgentExec {
    const process = this.#machine.processes.get(channel)
    if (!process) throw new MagsError('not_found', `no program waits on channel ${channel} of the sandbox`)
    return this.#running(process, output, safe)
  }

  dial(port: number): Promise<Duplex> {
    return this.#answer(() => {
      const serve = this.#machine.ports[port]
      if (serve === undefined) throw notListening(port)
      const [ours, theirs] = duplexPair()
      serve(theirs)
      ours.on('error', () => undefined)
      ours.once('close', () => this.#dials.delete(ours))
      this.#dials.add(ours)
      return ours
    })
  }

  dialLayerWorker(): Promise<Duplex> {
    return this.#answer(() => {
      throw new MagsError('not_available', 'a fake sandbox has no layer worker')
    })
  }

  ping(): Promise<void> {
    return this.#answer(() => undefined)
  }

  identity(identity: AgentIdentity): Promise<void> {
    return this.#answer(() => {
      this.identities.push(identity)
      if (identity.hostname) this.#machine.hostname = identity.hostname
      const files = {
        '/etc/hostname': identity.hostname,
        '/etc/hosts': identity.hosts,
        '/etc/resolv.conf': identity.resolvConf,
        '/etc/machine-id': identity.machineId,
      }
      for (const [path, text] of Object.entries(files)) {
        if (text) this.#machine.files.write(path, Buffer.from(text), { mode: 0o644, offset: 0, truncate: true, parents: true })
      }
    })
  }

  attachDisk(): Promise<void> {
    return this.#answer(() => undefined)
  }

  detachDisk(): Promise<void> {
    return this.#answer(() => undefined)
  }

  freezeDisk(): Promise<void> {
    return this.#answer(() => undefined)
  }

  thawDisk(): Promise<void> {
    return this.#answer(() => undefined)
  }

  stats(): Promise<AgentStats> {
    const { memoryMb, diskGb } = this.#machine.shape
    return this.#answer(() => ({
      memoryTotalBytes: memoryMb << 20,
      memoryAvailableBytes: memoryMb << 19,
      diskTotalBytes: diskGb * 2 ** 30,
      diskAvailableBytes: diskGb * 2 ** 29,
      processes: this.#machine.processes.size + 1,
    }))
  }

  close() {
    this.#end(new MagsError('sandbox_failed', 'the connection to the sandbox was closed'), true)
  }

  #end(error: Error, byUs: boolean) {
    if (this.#over) return
    this.#over = error
    for (const process of this.#machine.processes.values()) process.abandon()
    for (const dial of this.#dials) dial.destroy(error)
    this.#closing.resolve(byUs ? undefined : error)
  }

  /** Answers at a turn in which the machine runs, or rejects when the connection ends first. */
  #answer<T>(answer: () => T): Promise<T> {
    if (this.#over) return Promise.reject(this.#over)
    return this.#orLost(this.#machine.turn().then(answer))
  }

  #orLost<T>(promise: Promise<T>): Promise<T> {
    const either = Promise.race([promise, this.#lost])
    either.catch(() => undefined)
    return either
  }

  #running(process: FakeProcess | undefined, output: AgentOutput, safe: { stdout: number; stderr: number }): AgentExec {
    const failed = Promise.withResolvers<never>()
    failed.promise.catch(() => undefined)
    const fail = (error: unknown) => {
      failed.reject(error)
      process?.close()
    }
    process?.consume((stream, offset, bytes) => {
      let taking: Promise<undefined | 'discard'> | undefined
      try {
        taking = output(stream, offset, bytes)
      } catch (error) {
        taking = Promise.reject(error)
      }
      return taking?.catch((error) => {
        fail(error)
        return new Promise<never>(() => undefined)
      })
    }, safe)
    const orFailed = <T>(promise: Promise<T>) => this.#orLost(Promise.race([promise, failed.promise]))
    const never = new Promise<never>(() => undefined)
    const exit: Promise<AgentExit> = orFailed(process?.exit ?? never)
    const pid = orFailed(process?.pid ?? never)
    return {
      channel: process?.channel ?? 0,
      pid,
      exit,
      eof: orFailed(process?.eof ?? never),
      writeStdin: (bytes) => this.#answer(() => process?.putStdin(bytes)),
      endStdin: () => void this.#answer(() => process?.endStdin()).catch(() => undefined),
      signal: (signal) => process?.signal(signal),
      resize: () => undefined,
      close: () => fail(new MagsError('sandbox_failed', 'the program was closed before it ended')),
    }
  }
}
