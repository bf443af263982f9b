/** RFC 9110 6.5.1: fields that frame, route, or let in may not come after the body. */
export function mayTrail(lower: string): boolean {
  return !/^(?:transfer[-_]encoding|content[-_].*|host|connection|keep-alive|proxy-.*|te|trailer|upgrade|http2-settings|authorization|cookie|set-cookie|forwarded|x[-_]forwarded[-_].*|cache-control|expect|max-forwards|range|age|date|expires|location|vary|warning|retry-after)$/.test(
    lower,
  )
}
