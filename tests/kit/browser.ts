import { existsSync } from 'node:fs'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type BrowserContext, chromium } from 'playwright-core'

const program = '/usr/bin/chromium'

/** Why there is no browser here, in words. */
export const missingBrowser = existsSync(program) ? undefined : `there is no ${program}; \`apt-get install chromium\` installs it`

export interface Browser extends AsyncDisposable {
  readonly context: BrowserContext
}

/** Chromium without a window and with a profile of its own. It finds `*.localhost` on this machine by itself, and takes every certificate. */
export async function openBrowser(): Promise<Browser> {
  await using undo = new AsyncDisposableStack()
  const profile = await mkdtemp(join(tmpdir(), 'mags-browser-'))
  undo.defer(() => rm(profile, { recursive: true, force: true, maxRetries: 5 }))
  const quiet = ['--no-first-run', '--disable-background-networking', '--disable-component-update', '--disable-sync', '--disable-quic']
  const context = await chromium.launchPersistentContext(profile, {
    executablePath: program,
    headless: true,
    ignoreHTTPSErrors: true,
    args: ['--no-sandbox', '--disable-gpu', ...quiet],
  })
  undo.defer(() => context.close())
  const kept = undo.move()
  return { context, [Symbol.asyncDispose]: () => kept.disposeAsync() }
}
