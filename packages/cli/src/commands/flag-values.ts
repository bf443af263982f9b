import { InvalidArgumentError } from 'commander'

/** For a flag that takes a whole number; commander turns the error into a usage error. */
export function wholeNumber(min: number, max = Number.MAX_SAFE_INTEGER): (text: string) => number {
  return (text) => {
    const value = Number(text)
    if (/^\d+$/.test(text) && value >= min && value <= max) return value
    throw new InvalidArgumentError(`It must be a whole number ${max === Number.MAX_SAFE_INTEGER ? `of at least ${min}` : `from ${min} to ${max}`}.`)
  }
}

/** For `--env`: NAME=VALUE, or NAME alone for the value it has here. Repeatable. */
export function environmentEntry(env: Readonly<Record<string, string | undefined>>) {
  return (text: string, earlier: Readonly<Record<string, string>> = {}): Record<string, string> => {
    const [, name, given] = /^([A-Za-z_][A-Za-z0-9_]*)(?:=(.*))?$/s.exec(text) ?? []
    if (name === undefined) throw new InvalidArgumentError('It must be NAME=VALUE, where the name is letters, digits and _.')
    const value = given ?? env[name]
    if (value === undefined) throw new InvalidArgumentError(`${name} is not set here; give it as ${name}=VALUE.`)
    return { ...earlier, [name]: value }
  }
}

/** For a flag that may be given several times. */
export function repeatable(text: string, earlier: readonly string[] = []): string[] {
  return [...earlier, text]
}
