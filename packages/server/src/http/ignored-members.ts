const mostWarnings = 20

/** Warnings about members of a body that a schema with this shape does not know; an object to spread into the answer, empty when there are none. */
export function ignoredMembers(body: Readonly<Record<string, unknown>>, shape: object): { readonly warnings?: string[] } {
  const warnings = Object.keys(body)
    .filter((name) => !Object.hasOwn(shape, name))
    .slice(0, mostWarnings)
    .map((name) => `unknown member ${JSON.stringify(name.slice(0, 64))} was ignored`)
  return warnings.length === 0 ? {} : { warnings }
}
