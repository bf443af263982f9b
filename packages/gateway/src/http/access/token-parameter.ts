const name = 'mags_token'

/** The `mags_token` of a target's query and the target without it; undefined when there is none. */
export function takeTokenParameter(target: string): { readonly token: string; readonly rest: string } | undefined {
  const mark = target.indexOf('?')
  if (mark < 0 || !target.includes(name, mark)) return undefined
  let token: string | undefined
  const kept = target
    .slice(mark + 1)
    .split('&')
    .filter((pair) => {
      if (!pair.startsWith(`${name}=`)) return pair !== name
      token ??= decode(pair.slice(name.length + 1))
      return false
    })
  if (token === undefined) return undefined
  return { token, rest: kept.length === 0 ? target.slice(0, mark) : `${target.slice(0, mark)}?${kept.join('&')}` }
}

function decode(text: string): string {
  try {
    return decodeURIComponent(text.replaceAll('+', ' '))
  } catch {
    return ''
  }
}
