import { MagsError } from '@mags/protocol'

/** Deeper than anything of ours; what walks a value by recursion runs out of stack some thousand levels later. */
const deepest = 64

/** Parses a request body. Throws MagsError('bad_request') when it is not JSON, naming the place, when it is nested too deep, and for a member `__proto__`, which would get lost on its way. */
export function parseJson(text: string): unknown {
  const value = parse(text)
  refuseOdd(value)
  return value
}

function parse(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch (error) {
    const position = faultPosition(text)
    const lines = text.slice(0, position).split('\n')
    const found = position >= text.length ? 'the text ends too early' : `unexpected ${JSON.stringify(text.slice(position, position + 1))}`
    const place = `line ${lines.length}, column ${(lines.at(-1)?.length ?? 0) + 1} (position ${position})`
    throw new MagsError('bad_request', `the body is not valid JSON: ${found} at ${place}`, { details: { position }, cause: error })
  }
}

/** Level by level, so that no depth is too much. */
function refuseOdd(value: unknown): void {
  let level = [value].filter(isNested)
  for (let depth = 1; level.length > 0; depth++) {
    if (depth > deepest) throw new MagsError('bad_request', `the body is nested deeper than ${deepest} levels`)
    if (level.some((each) => Object.hasOwn(each, '__proto__'))) throw new MagsError('bad_request', 'the body has a member "__proto__"; choose another name')
    level = level.flatMap((each) => Object.values(each).filter(isNested))
  }
}

const isNested = (value: unknown): value is object => typeof value === 'object' && value !== null

const blank = /[ \t\n\r]*/y
const word = /-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?|true|false|null/y
const escapeSequence = /\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4})/y

interface Token {
  readonly kind: 'mark' | 'string' | 'word' | 'fault'
  /** Where it begins; of a fault, its place. */
  readonly start: number
  readonly end: number
}

function tokenAt(text: string, at: number): Token {
  blank.lastIndex = at
  const start = at + (blank.exec(text)?.[0].length ?? 0)
  const first = text.charAt(start)
  if (first !== '' && '{}[],:'.includes(first)) return { kind: 'mark', start, end: start + 1 }
  if (first === '"') return stringAt(text, start)
  word.lastIndex = start
  const match = word.exec(text)
  return match === null ? { kind: 'fault', start, end: start } : { kind: 'word', start, end: start + match[0].length }
}

function stringAt(text: string, start: number): Token {
  for (let at = start + 1; at < text.length; at++) {
    const code = text.charCodeAt(at)
    if (code === 0x22) return { kind: 'string', start, end: at + 1 }
    escapeSequence.lastIndex = at
    const escaped = code === 0x5c ? escapeSequence.exec(text) : undefined
    if (code < 0x20 || escaped === null) return { kind: 'fault', start: at, end: at }
    if (escaped) at += escaped[0].length - 1
  }
  return { kind: 'fault', start: text.length, end: text.length }
}

type Expected = 'value' | 'value or ]' | 'key' | 'key or }' | ':' | ', or end' | 'nothing'

/** Where the first token is that does not fit (RFC 8259). JSON.parse knows, but does not always say. */
function faultPosition(text: string): number {
  const open: string[] = []
  let expected: Expected = 'value'
  for (let at = 0; ; ) {
    const token = tokenAt(text, at)
    const next: Expected | undefined =
      token.kind === 'fault' ? undefined : follow(token.kind === 'mark' ? text.charAt(token.start) : token.kind, expected, open)
    if (next === undefined) return token.start
    expected = next
    at = token.end
  }
}

/** What may come after `token`, or undefined when it does not fit. Keeps the stack of open brackets. */
function follow(token: string, expected: Expected, open: string[]): Expected | undefined {
  const takesValue = expected === 'value' || expected === 'value or ]'
  if (token === '{' || token === '[') {
    if (!takesValue) return undefined
    open.push(token)
    return token === '{' ? 'key or }' : 'value or ]'
  }
  if (token === ':') return expected === ':' ? 'value' : undefined
  if (token === ',') return expected === ', or end' ? (open.at(-1) === '{' ? 'key' : 'value') : undefined
  if (token === '}' || token === ']') {
    const opening = token === '}' ? '{' : '['
    const emptied = expected === (token === '}' ? 'key or }' : 'value or ]')
    if (open.at(-1) !== opening || !(emptied || expected === ', or end')) return undefined
    open.pop()
  } else if (token === 'string' && expected.startsWith('key')) {
    return ':'
  } else if (!takesValue) {
    return undefined
  }
  return open.length === 0 ? 'nothing' : ', or end'
}
