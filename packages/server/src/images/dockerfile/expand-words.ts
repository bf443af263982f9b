/** Looks a variable up; undefined when it is not set. */
export type Lookup = (name: string) => string | undefined

/** Of one word: programs take no longer one, MAX_ARG_STRLEN in execve(2). */
export const longestValue = 128 * 1024
const deepestNesting = 16

/** Words of an instruction, parted by spaces that are neither quoted nor escaped; quotes and variables stand as they are. */
export function splitWords(text: string, escapeSign: string): string[] {
  const words: string[] = []
  let word = ''
  let quote = ''
  for (let at = 0; at < text.length; at++) {
    const character = text.charAt(at)
    if (character === escapeSign && quote !== "'" && at + 1 < text.length) word += character + text.charAt(++at)
    else if (quote === '' && /\s/.test(character)) {
      if (word !== '') words.push(word)
      word = ''
    } else {
      if (quote === character) quote = ''
      else if (quote === '' && (character === '"' || character === "'")) quote = character
      word += character
    }
  }
  if (quote !== '') throw new Error(`a quote ${quote} is not closed`)
  return word === '' ? words : [...words, word]
}

/** A word without its quotes and escapes, and with `$name`, `${name}`, `${name:-word}` and `${name:+word}` replaced, as the Dockerfile reference has it. Throws Error in words. */
export function expandWord(word: string, lookup: Lookup, escapeSign: string, depth = 0): string {
  if (depth > deepestNesting) throw new Error(`variables lie more than ${deepestNesting} deep in one another`)
  let result = ''
  let quote = ''
  for (let at = 0; at < word.length; at++) {
    const character = word.charAt(at)
    if (character === "'" && quote !== '"') quote = quote === '' ? character : ''
    else if (character === '"' && quote !== "'") quote = quote === '' ? character : ''
    else if (character === escapeSign && quote !== "'" && at + 1 < word.length) {
      const next = word.charAt(++at)
      result += quote === '"' && !['"', '$', escapeSign].includes(next) ? character + next : next
    } else if (character === '$' && quote !== "'") {
      const { value, end } = expandVariable(word, at, lookup, escapeSign, depth)
      result += value
      at = end - 1
    } else result += character
    if (result.length > longestValue) throw new Error(`a value has more than ${longestValue / 1024} KiB`)
  }
  return result
}

function expandVariable(word: string, start: number, lookup: Lookup, escapeSign: string, depth: number): { value: string; end: number } {
  if (word.charAt(start + 1) !== '{') {
    const [name = ''] = /^[A-Za-z_][A-Za-z0-9_]*|^[0-9]/.exec(word.slice(start + 1)) ?? []
    return name === '' ? { value: '$', end: start + 1 } : { value: lookup(name) ?? '', end: start + 1 + name.length }
  }
  const end = closingBrace(word, start + 2)
  const [, name, colon, operator, rest = ''] = /^([A-Za-z_][A-Za-z0-9_]*)(?:(:?)([-+?])(.*))?$/s.exec(word.slice(start + 2, end)) ?? []
  if (name === undefined) throw new Error(`\${${word.slice(start + 2, end)}} is not a variable that is understood`)
  const value = lookup(name)
  const isSet = colon === ':' ? value !== undefined && value !== '' : value !== undefined
  const other = () => expandWord(rest, lookup, escapeSign, depth + 1)
  if (operator === '?' && !isSet) throw new Error(`${name}: ${other() || 'is not set'}`)
  const chosen = operator === '-' ? (isSet ? value : other()) : operator === '+' ? (isSet ? other() : '') : value
  return { value: chosen ?? '', end: end + 1 }
}

function closingBrace(word: string, from: number): number {
  let depth = 1
  for (let at = from; at < word.length; at++) {
    if (word.charAt(at) === '{') depth++
    else if (word.charAt(at) === '}' && --depth === 0) return at
  }
  throw new Error('a ${ is not closed')
}
