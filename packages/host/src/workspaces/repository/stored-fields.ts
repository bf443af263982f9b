/** Reads fields of an object out of JSON from a store, where anything may be found. Errors name the place, as `versions[3].fence`. */
export class StoredFields {
  readonly #fields: Readonly<Record<string, unknown>>
  readonly #place: string

  constructor(value: unknown, place = '') {
    if (typeof value !== 'object' || value === null || Array.isArray(value)) throw new Error(`${place || 'the whole'} is no object`)
    this.#fields = value as Record<string, unknown>
    this.#place = place === '' ? '' : `${place}.`
  }

  /** Refuses fields that are not known: they would be lost with the next writing. */
  only(...names: string[]): this {
    const strange = Object.keys(this.#fields).find((name) => !names.includes(name))
    if (strange !== undefined) throw new Error(`${this.#place}${strange.slice(0, 100)} is not known`)
    return this
  }

  integer(name: string, least = 0, most = Number.MAX_SAFE_INTEGER): number {
    const value = this.#read(name)
    if (!Number.isSafeInteger(value) || (value as number) < least || (value as number) > most)
      throw new Error(`${this.#place}${name} is no integer from ${least} to ${most}`)
    return value as number
  }

  text(name: string, rule: RegExp): string {
    const value = this.#read(name)
    if (typeof value !== 'string' || !rule.test(value)) throw new Error(`${this.#place}${name} is not as it should be`)
    return value
  }

  /** RFC 3339 in UTC with milliseconds, as Date.toISOString() writes it. */
  time(name: string): string {
    const value = this.text(name, /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/)
    if (Number.isNaN(Date.parse(value))) throw new Error(`${this.#place}${name} is no time`)
    return value
  }

  fields(name: string): StoredFields {
    return new StoredFields(this.#read(name), `${this.#place}${name}`)
  }

  list(name: string, most: number): readonly unknown[] {
    const value = this.#read(name)
    if (!Array.isArray(value) || value.length > most) throw new Error(`${this.#place}${name} is no list of at most ${most}`)
    return value
  }

  listOfFields(name: string, most: number): readonly StoredFields[] {
    return this.list(name, most).map((value, index) => new StoredFields(value, `${this.#place}${name}[${index}]`))
  }

  isNull(name: string): boolean {
    return this.#read(name) === null
  }

  #read(name: string): unknown {
    return Object.hasOwn(this.#fields, name) ? this.#fields[name] : undefined
  }
}
