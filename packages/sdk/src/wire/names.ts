/** The one place where the wire's snake_case meets camelCase. */

type CamelName<Name extends string> = Name extends `${infer Head}_${infer Tail}` ? `${Head}${Capitalize<CamelName<Tail>>}` : Name

/** An answer of the API with every snake_case member readable under its camelCase name too. */
export type Answer<Wire> = Wire extends readonly (infer Item)[]
  ? Answer<Item>[]
  : Wire extends object
    ? { [Key in keyof Wire]: Answer<Wire[Key]> } & { [Key in keyof Wire as Key extends string ? CamelName<Key> : never]: Answer<Wire[Key]> }
    : Wire

/**
 * Adds the camelCase names to an answer, in place and at every depth. They are not enumerable: `JSON.stringify` and `Object.keys`
 * show the answer exactly as the server gave it.
 */
export function withCamelNames<Wire>(value: Wire): Answer<Wire> {
  if (Array.isArray(value)) {
    for (const item of value) withCamelNames(item)
  } else if (typeof value === 'object' && value !== null) {
    for (const [name, member] of Object.entries(value)) {
      withCamelNames(member)
      const camel = camelName(name)
      if (camel !== name && !Object.hasOwn(value, camel)) {
        Object.defineProperty(value, camel, { value: member, enumerable: false, configurable: true, writable: true })
      }
    }
  }
  return value as Answer<Wire>
}

/** Options of a call as members of a request: top-level names become snake_case, values stay (environment names are the caller's). */
export function toWire(options: object): Record<string, unknown> {
  const wire: Record<string, unknown> = {}
  for (const [name, value] of Object.entries(options)) {
    if (value !== undefined) wire[snakeName(name)] = value
  }
  return wire
}

function camelName(name: string): string {
  return /^[a-z]/.test(name) ? name.replace(/_([a-z0-9])/g, (_match, letter: string) => letter.toUpperCase()) : name
}

function snakeName(name: string): string {
  return name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`)
}
