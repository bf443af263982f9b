import type { GatewayDirectory, GatewayTarget } from '@mags/protocol'
import { jsonAnswer, type OwnAnswer, pageAnswer, redirectAnswer } from '../answers/own-answer.ts'
import { loginPage } from '../answers/page.ts'
import { type ClientRequest, fieldOf, wantsPage } from '../request/client-request.ts'
import type { Withheld } from '../request/upstream-head.ts'
import { cookieNames, makeCookie, opensJob } from './session-cookie.ts'
import { takeTokenParameter } from './token-parameter.ts'

export const loginPath = '/.mags/login'

export interface AccessDeps {
  readonly directory: Pick<GatewayDirectory, 'acceptsToken'>
  /** 32 random bytes that stay the same over restarts. */
  readonly cookieKey: Uint8Array
}

const withholdNothing: Withheld = { authorization: false, target: undefined, cookieNames }

/** Whether a request may see this job's URL, and what of it the sandbox must not see; or the answer instead. */
export async function admit(deps: AccessDeps, target: GatewayTarget, request: ClientRequest): Promise<Withheld | OwnAnswer> {
  const parameter = takeTokenParameter(request.target)
  if (target.visibility === 'public') return parameter === undefined ? withholdNothing : { ...withholdNothing, target: parameter.rest }
  const { requestId } = target
  const withheld = { ...withholdNothing, target: parameter?.rest }
  if (parameter !== undefined && request.upgrade === undefined && (request.method === 'GET' || request.method === 'HEAD')) {
    if (!(await accepts(deps, requestId, parameter.token))) return refusal(request, parameter.rest, true)
    return redirectAnswer(localPath(parameter.rest), [['Set-Cookie', makeCookie(deps.cookieKey, requestId, isSecure(request), Date.now())]])
  }
  const cookies = request.fields.filter((field) => field.lower === 'cookie').map((field) => field.value)
  const bearer = bearerToken(request)
  if (bearer !== undefined && (await accepts(deps, requestId, bearer))) return { ...withheld, authorization: true }
  if (isSameOrigin(request) && opensJob(deps.cookieKey, requestId, cookies, isSecure(request), Date.now())) return withheld
  if (parameter !== undefined && (await accepts(deps, requestId, parameter.token))) return withheld
  return refusal(request, parameter?.rest ?? request.target, false)
}

/** Answers the form of the page that asks for a token. `body` is what it posted. */
export async function logIn(deps: AccessDeps, target: GatewayTarget, request: ClientRequest, body: string): Promise<OwnAnswer> {
  const form = new URLSearchParams(body)
  const returnTo = localPath(form.get('return') ?? '/')
  if (!(await accepts(deps, target.requestId, form.get('token')?.trim() ?? ''))) return pageAnswer(401, loginPage(loginPath, returnTo, true))
  return redirectAnswer(returnTo, [['Set-Cookie', makeCookie(deps.cookieKey, target.requestId, isSecure(request), Date.now())]])
}

function refusal(request: ClientRequest, returnTo: string, wrong: boolean): OwnAnswer {
  const challenge: OwnAnswer['headers'] = [['WWW-Authenticate', 'Bearer realm="mags"']]
  if (wantsPage(request)) return pageAnswer(401, loginPage(loginPath, request.method === 'GET' ? localPath(returnTo) : '/', wrong), challenge)
  return jsonAnswer(401, { error: 'this URL is private: send a token of its account as Authorization: Bearer <token>', code: 'unauthorized' }, challenge)
}

async function accepts(deps: AccessDeps, requestId: string, token: string): Promise<boolean> {
  return token !== '' && token.length <= 4096 && (await deps.directory.acceptsToken(requestId, token))
}

/**
 * Pages of other sandboxes are of the same site, so the browser sends them the cookie; it must not open a WebSocket, change something, or load a script or a frame on their behalf. A link of theirs may be followed
 * (https://www.w3.org/TR/fetch-metadata/).
 */
function isSameOrigin(request: ClientRequest): boolean {
  const origin = fieldOf(request.fields, 'origin')
  if (origin !== undefined && origin.toLowerCase().replace(/^https?:\/\//, '') !== request.hostText.toLowerCase()) return false
  const site = fieldOf(request.fields, 'sec-fetch-site')
  if (site !== 'same-site' && site !== 'cross-site') return true
  const isRead = request.method === 'GET' || request.method === 'HEAD'
  return isRead && fieldOf(request.fields, 'sec-fetch-mode') === 'navigate' && fieldOf(request.fields, 'sec-fetch-dest') === 'document'
}

function bearerToken(request: ClientRequest): string | undefined {
  return /^bearer +([^\s]+)$/i.exec(fieldOf(request.fields, 'authorization') ?? '')?.[1]
}

/** Whether the browser speaks TLS, with us or with the trusted proxy before us. */
function isSecure(request: ClientRequest): boolean {
  if (request.secure) return true
  return request.client.trusted && fieldOf(request.fields, 'x-forwarded-proto')?.toLowerCase() === 'https'
}

/** Never another host: a browser takes `//` and `/\` for the beginning of one. */
function localPath(path: string): string {
  return /^\/(?![/\\])[\x21-\x7e]*$/.test(path) ? path : '/'
}
