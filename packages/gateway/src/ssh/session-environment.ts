const namesMax = 64
const bytesMax = 32 * 1024
/** Not those of the locale: that of a client is rarely installed in a sandbox, and then every bash and perl says so. */
const locale = /^LC_(ALL|CTYPE|COLLATE|MESSAGES|MONETARY|NUMERIC|TIME|PAPER|NAME|ADDRESS|TELEPHONE|MEASUREMENT|IDENTIFICATION)$/
const allowed = /^(LC_[A-Z_]{1,32}|TZ|TERM|COLORTERM|TERM_PROGRAM|TERM_PROGRAM_VERSION|NO_COLOR|FORCE_COLOR|EDITOR|VISUAL|PAGER|GIT_[A-Z0-9_]{1,48})$/

/** What a client may set for its programs: names of a list (as `AcceptEnv` of sshd_config(5)), bounded in number and size. */
export class SessionEnvironment {
  readonly #values = new Map<string, string>()
  #bytes = 0

  /** Whether it was taken. */
  add(name: string, value: string): boolean {
    if (!allowed.test(name) || locale.test(name) || value.includes('\0')) return false
    const known = this.#values.get(name)
    const bytes = this.#bytes + Buffer.byteLength(value) + (known === undefined ? name.length : -Buffer.byteLength(known))
    if (bytes > bytesMax || (known === undefined && this.#values.size >= namesMax)) return false
    this.#bytes = bytes
    this.#values.set(name, value)
    return true
  }

  get values(): Readonly<Record<string, string>> {
    return Object.fromEntries(this.#values)
  }
}
