const tokenTable = table((code) => /[!#$%&'*+\-.^_`|~0-9A-Za-z]/.test(String.fromCharCode(code)))
const valueTable = table((code) => code === 9 || (code >= 32 && code !== 127))
const targetTable = table((code) => code > 32 && code < 127 && code !== 35)

/** RFC 9110 5.6.2: what names of fields and methods are made of. */
export function isToken(text: string): boolean {
  return text.length > 0 && all(text, tokenTable)
}

/** RFC 9110 5.5: visible characters, blanks, tabs and bytes over 127. The text is latin1. */
export function isFieldValue(text: string): boolean {
  return all(text, valueTable)
}

/** Characters a request target may have: visible ASCII without `#`. */
export function isTarget(text: string): boolean {
  return text.length > 0 && all(text, targetTable)
}

function all(text: string, allowed: Uint8Array): boolean {
  for (let i = 0; i < text.length; i++) if (allowed[text.charCodeAt(i)] !== 1) return false
  return true
}

function table(allows: (code: number) => boolean): Uint8Array {
  return Uint8Array.from({ length: 256 }, (_, code) => (allows(code) ? 1 : 0))
}
