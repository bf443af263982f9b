import { createHmac, timingSafeEqual } from 'node:crypto'

const lifetimeS = 12 * 3600
const plainName = 'mags_access'
/** RFC 6265bis 4.1.3.2: a browser takes it from this very host only. */
const secureName = '__Host-mags_access'

export const cookieNames: readonly string[] = [plainName, secureName]

/** Value of Set-Cookie that opens one job for twelve hours. */
export function makeCookie(key: Uint8Array, requestId: string, secure: boolean, nowMs: number): string {
  const expires = Math.floor(nowMs / 1000) + lifetimeS
  const value = `${expires}.${sign(key, requestId, expires).toString('base64url')}`
  return `${secure ? secureName : plainName}=${value}; Path=/; Max-Age=${lifetimeS}; HttpOnly; SameSite=Lax${secure ? '; Secure' : ''}`
}

/** Whether one of the cookies opens this job; others of the same name may have been set by a neighbour's page. */
export function opensJob(key: Uint8Array, requestId: string, cookies: readonly string[], secure: boolean, nowMs: number): boolean {
  const name = secure ? secureName : plainName
  for (const pair of cookies.join(';').split(';').slice(0, 200)) {
    const [, expiresText, signature] = pair.trim().startsWith(`${name}=`) ? (/=(\d{1,12})\.([\w-]{43})$/.exec(pair.trim()) ?? []) : []
    if (expiresText === undefined || signature === undefined) continue
    const expires = Number(expiresText)
    if (expires * 1000 > nowMs && timingSafeEqual(sign(key, requestId, expires), Buffer.from(signature, 'base64url'))) return true
  }
  return false
}

function sign(key: Uint8Array, requestId: string, expires: number): Buffer {
  return createHmac('sha256', key).update(`mags url access 1\n${requestId}\n${expires}`).digest()
}
