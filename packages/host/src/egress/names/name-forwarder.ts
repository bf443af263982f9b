import type { ChildProcess } from 'node:child_process'
import { extname } from 'node:path'
import { fileURLToPath } from 'node:url'
import type { Logger } from 'pino'
import { startResident } from '../../run.ts'
import type { DomainRules } from '../domain-rule.ts'
import { type FromForwarder, Lines, type ToForwarder } from './messages.ts'

export interface NameForwarderDeps {
  readonly instance: string
  readonly netnsPath: string
  readonly logFile: string
  /** Where it listens and where the resolver is. */
  readonly address: string
  readonly port: number
  readonly uid: number
  /** What sandboxes without a policy of their own may ask for. */
  readonly defaultDomains: DomainRules | undefined
  /** Makes addresses reachable; which of them may be told. */
  readonly grant: (address: string, name: string, addresses: readonly string[], seconds: number) => Promise<readonly string[] | undefined>
  readonly onRefused: (address: string, name: string) => void
  readonly logger: Logger
}

const startMs = 10_000
const retryMs = 500
/** Node's own share of a process this small is most of it. */
const nodeFlags = ['--max-old-space-size=64', '--max-semi-space-size=1', '--disable-warning=ExperimentalWarning']
const digits = /^\d+$/

/**
 * The program that answers names of filtered sandboxes, in the router's namespace and without privilege.
 *
 *     idle ──first rules──▶ starting ──listens──▶ ready ──ends──▶ starting …
 *       └──────────────────── close ───────────────┴──▶ closed
 *
 * While it is not ready filtered names have no answer. It ends with the daemon: its input does.
 */
export class NameForwarder {
  readonly #deps: NameForwarderDeps
  readonly #rules = new Map<string, DomainRules>()
  readonly #waiting = new Map<number, () => void>()
  #child: ChildProcess | undefined
  #ready: Promise<boolean> | undefined
  #retry: NodeJS.Timeout | undefined
  #lastId = 0
  #closed = false

  constructor(deps: NameForwarderDeps) {
    this.#deps = deps
    if (deps.defaultDomains !== undefined) void this.#start()
  }

  /** Of the process, for those who look at it from outside. */
  get pid() {
    return this.#child?.pid
  }

  prepare(): Promise<unknown> {
    return this.#closed ? Promise.resolve() : this.#start()
  }

  /** Settles once the forwarder goes by it, or is not there to answer anything. */
  async set(address: string, domains: DomainRules | undefined) {
    if (domains === undefined) this.#rules.delete(address)
    else this.#rules.set(address, domains)
    if (this.#child !== undefined) await this.#send({ kind: 'set', id: ++this.#lastId, address, ...(domains === undefined ? {} : { domains }) })
  }

  async close() {
    this.#closed = true
    clearTimeout(this.#retry)
    const child = this.#child
    if (child === undefined || child.exitCode !== null || child.signalCode !== null) return
    const ended = new Promise((resolve) => child.once('exit', resolve))
    child.kill('SIGKILL')
    await ended
  }

  /** True once it listens and knows all rules; false when it could not be started, which is tried again. */
  #start(): Promise<boolean> {
    this.#ready ??= this.#startNow().catch((error: unknown) => {
      this.#deps.logger.error(
        { err: error, log: this.#deps.logFile },
        'the name forwarder does not start; sandboxes with domains in their policy resolve no names until it does',
      )
      return false
    })
    return this.#ready
  }

  async #startNow(): Promise<boolean> {
    const { netnsPath, uid, logFile, instance, address, port, defaultDomains } = this.#deps
    const own = fileURLToPath(import.meta.url)
    const program = fileURLToPath(new URL(`./run-forwarder${extname(own)}`, import.meta.url))
    const drop = ['setpriv', '--reuid', String(uid), '--regid', String(uid), '--clear-groups', '--no-new-privs', '--bounding-set=-all', '--inh-caps=-all']
    const label = `mags-${instance}-names`
    const argv = [`--net=${netnsPath}`, ...drop, process.execPath, ...nodeFlags, program, label, address, String(port)]
    const child = startResident('nsenter', argv, { logFile, stdin: 'pipe', stdout: 'pipe', cwd: '/', env: { PATH: process.env.PATH ?? '' } })
    this.#child = child
    const ready = Promise.withResolvers<boolean>()
    const timer = setTimeout(() => child.kill('SIGKILL'), startMs)
    const gone = () => {
      clearTimeout(timer)
      ready.resolve(false)
      this.#lost(child)
    }
    child.once('error', gone)
    child.once('exit', gone)
    child.stdin?.on('error', () => undefined)
    const lines = new Lines()
    child.stdout?.setEncoding('utf8').on('data', (text: string) => {
      try {
        for (const line of lines.push(text)) this.#obey(JSON.parse(line) as FromForwarder, () => ready.resolve(true))
      } catch (error) {
        this.#deps.logger.error({ err: error }, 'the name forwarder is not what it should be; it is started again')
        child.kill('SIGKILL')
      }
    })
    const known = [...this.#rules].map(([each, domains]) => this.#send({ kind: 'set', id: ++this.#lastId, address: each, domains }))
    if (defaultDomains !== undefined) known.push(this.#send({ kind: 'default', id: ++this.#lastId, domains: defaultDomains }))
    const isReady = await ready.promise
    clearTimeout(timer)
    await Promise.all(known)
    return isReady
  }

  #lost(child: ChildProcess) {
    if (this.#child !== child) return
    this.#child = undefined
    this.#ready = undefined
    for (const resolve of this.#waiting.values()) resolve()
    this.#waiting.clear()
    if (this.#closed) return
    this.#deps.logger.warn({ log: this.#deps.logFile }, 'the name forwarder ended and is started again')
    this.#retry = setTimeout(() => void this.#start(), retryMs).unref()
  }

  /** Settles when it is done, or the forwarder has ended. */
  #send(message: Exclude<ToForwarder, { kind: 'granted' }>): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>()
    this.#waiting.set(message.id, resolve)
    this.#child?.stdin?.write(`${JSON.stringify(message)}\n`)
    return promise
  }

  #obey(message: FromForwarder, onReady: () => void) {
    if (message.kind === 'ready') return onReady()
    if (message.kind === 'done') {
      this.#waiting.get(message.id)?.()
      this.#waiting.delete(message.id)
      return
    }
    if (message.kind === 'refused') return this.#deps.onRefused(checkText(message.address), checkText(message.name))
    const addresses = message.addresses.map(checkAddress)
    if (addresses.length > 64 || !Number.isSafeInteger(message.seconds) || !Number.isSafeInteger(message.id)) throw new Error('a grant is malformed')
    void this.#grant(message.id, checkText(message.address), checkText(message.name), addresses, Math.min(Math.max(message.seconds, 1), 4000))
  }

  async #grant(id: number, address: string, name: string, addresses: readonly string[], seconds: number) {
    const child = this.#child
    const granted = await this.#deps.grant(address, name, addresses, seconds).catch(() => undefined)
    const message: ToForwarder = { kind: 'granted', id, ...(granted === undefined ? {} : { addresses: granted }) }
    child?.stdin?.write(`${JSON.stringify(message)}\n`)
  }
}

function checkText(value: unknown): string {
  if (typeof value === 'string' && value.length <= 256 && /^[a-z0-9._-]*$/.test(value)) return value
  throw new Error('a name is malformed')
}

/** It becomes part of a rule. */
function checkAddress(value: unknown): string {
  const parts = typeof value === 'string' ? value.split('.') : []
  if (typeof value === 'string' && parts.length === 4 && parts.every((part) => digits.test(part) && Number(part) < 256 && String(Number(part)) === part))
    return value
  throw new Error('an address is malformed')
}
