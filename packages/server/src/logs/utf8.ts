/** Where to cut `bytes` at or before `at` so that no UTF-8 character is split; `at` itself when these bytes are not UTF-8. */
export function characterBoundary(bytes: Uint8Array, at: number): number {
  if (at >= bytes.length) return bytes.length
  for (let back = 0; back <= 3 && at - back > 0; back++) {
    if (((bytes[at - back] ?? 0) & 0xc0) !== 0x80) return at - back
  }
  return at
}

/** How many of `bytes` are whole: less than all when the last character is not there yet in full. */
export function wholeCharacters(bytes: Uint8Array): number {
  for (let back = 1; back <= 3 && back <= bytes.length; back++) {
    const byte = bytes[bytes.length - back] ?? 0
    if ((byte & 0xc0) === 0x80) continue
    const needed = byte >= 0xf0 && byte < 0xf8 ? 4 : byte >= 0xe0 && byte < 0xf0 ? 3 : byte >= 0xc0 && byte < 0xe0 ? 2 : 1
    return needed > back ? bytes.length - back : bytes.length
  }
  return bytes.length
}
