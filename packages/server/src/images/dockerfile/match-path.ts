/** A pattern of COPY for one name of a path: `*`, `?`, `[a-z]`, `[^a]` and `\` before what stands for itself, as Go's path/filepath.Match. */
export function matchesName(pattern: string, name: string): boolean {
  return patternExpression(pattern).test(name)
}

export const isPattern = (path: string) => /[*?[\\]/.test(path)

function patternExpression(pattern: string): RegExp {
  let source = ''
  for (let at = 0; at < pattern.length; at++) {
    const character = pattern.charAt(at)
    const end = pattern.indexOf(']', at + 2)
    if (character === '*') source += '[^/]*'
    else if (character === '?') source += '[^/]'
    else if (character === '[' && end !== -1) {
      const body = pattern.slice(at + 1, end)
      source += `[${body.startsWith('^') ? '^' : ''}${body.replace(/^\^/, '').replace(/[\\[\]^]/g, '\\$&')}]`
      at = end
    } else if (character === '\\' && at + 1 < pattern.length) source += literal(pattern.charAt(++at))
    else source += literal(character)
  }
  return new RegExp(`^${source.replaceAll(/(?:\[\^\/\]\*){2,}/g, '[^/]*')}$`, 's')
}

const literal = (character: string) => character.replace(/[\\^$.*+?()[\]{}|/-]/g, '\\$&')
