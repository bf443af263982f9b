import { MagsError } from '@mags/protocol'

/** Reading settings out of the environment; each throws MagsError 'bad_request' naming the setting and the rule. */
export type Environment = Readonly<Record<string, string | undefined>>

export function wholeNumber(environment: Environment, name: string, fallback: number, least: number, most: number): number {
  const text = environment[name]
  if (text === undefined || text === '') return fallback
  const value = Number(text)
  if (!Number.isInteger(value) || value < least || value > most) {
    throw new MagsError('bad_request', `${name}: a whole number from ${least} to ${most}, not ${JSON.stringify(text)}`)
  }
  return value
}

export function oneOf<const T extends string>(environment: Environment, name: string, choices: readonly [T, ...T[]]): T {
  const text = environment[name]
  if (text === undefined || text === '') return choices[0]
  const choice = choices.find((candidate) => candidate === text)
  if (choice === undefined) throw new MagsError('bad_request', `${name}: one of ${choices.join(', ')}, not ${JSON.stringify(text)}`)
  return choice
}

/** Parts between commas and spaces. */
export const list = (text: string | undefined): string[] => (text ?? '').split(/[\s,]+/).filter((part) => part !== '')
