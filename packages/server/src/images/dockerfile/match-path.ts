/** Names of a path are not longer. */
const longestPattern = 255

type Piece = '*' | ((character: string) => boolean)

/** Tells whether a name is one that a pattern of COPY means: `*`, `?`, `[a-z]`, `[^a]` and `\` before what stands for itself, as Go's path/filepath.Match. Takes no more steps than the name's length times the pattern's. */
export function nameMatcher(pattern: string): (name: string) => boolean {
  if (pattern.length > longestPattern) return () => false
  const pieces = piecesOf(pattern)
  return (name) => matches(pieces, [...name])
}

export const isPattern = (path: string) => /[*?[\\]/.test(path)

/** Only the last `*` ever takes more: what an earlier one could take instead, that one can, too. */
function matches(pieces: readonly Piece[], name: readonly string[]): boolean {
  let piece = 0
  let at = 0
  let star: { readonly piece: number; at: number } | undefined
  while (at < name.length) {
    const wanted = pieces[piece]
    if (wanted === '*') star = { piece: ++piece, at }
    else if (wanted?.(name[at] as string)) {
      piece++
      at++
    } else if (star) {
      at = ++star.at
      piece = star.piece
    } else return false
  }
  return pieces.slice(piece).every((rest) => rest === '*')
}

function piecesOf(pattern: string): Piece[] {
  const pieces: Piece[] = []
  const characters = [...pattern]
  for (let at = 0; at < characters.length; at++) {
    const character = characters[at] as string
    const end = characters.indexOf(']', at + 2)
    if (character === '*') pieces.push('*')
    else if (character === '?') pieces.push(() => true)
    else if (character === '[' && end !== -1) {
      pieces.push(classOf(characters.slice(at + 1, end)))
      at = end
    } else pieces.push(literal(character === '\\' && at + 1 < characters.length ? (characters[++at] as string) : character))
  }
  return pieces
}

const literal = (wanted: string) => (character: string) => character === wanted

function classOf(body: readonly string[]): (character: string) => boolean {
  const isNegated = body[0] === '^'
  const rest = isNegated ? body.slice(1) : body
  const ranges: [from: string, to: string][] = []
  for (let at = 0; at < rest.length; at++) {
    const from = rest[at] as string
    const to = rest[at + 1] === '-' ? rest[at + 2] : undefined
    ranges.push([from, to ?? from])
    if (to !== undefined) at += 2
  }
  return (character) => ranges.some(([from, to]) => character >= from && character <= to) !== isNegated
}
