import type { SandboxSpec } from '@mags/protocol'
import { expect } from 'vitest'
import type { FakeHost } from './fake-host.ts'
import type { FakeSandbox } from './fake-sandbox.ts'
import { interpret } from './fake-script.ts'
import { FakeTimers } from './fake-timers.ts'
import { startTestServer, type TestServer, type TestServerOptions } from './test-server.ts'

export const checkMs = 60_000
const poll = { timeout: 10_000, interval: 5 }

/** A server of which a test has time in its hands. */
export interface SleepServer extends TestServer {
  readonly timers: FakeTimers
  /** Called before a sandbox is handed out. */
  beforeAcquire: (spec: SandboxSpec, abort: AbortSignal | undefined) => Promise<void> | void
  /** What the script `flood` stands for. */
  flood: string
  /** Lets time pass, then the server look for jobs that nobody uses; settles once it has looked. */
  pass(ms: number): Promise<void>
}

export async function startSleepServer(options: TestServerOptions = {}): Promise<SleepServer> {
  const timers = new FakeTimers()
  const state = { beforeAcquire: (): Promise<void> | void => undefined, flood: '' } as Pick<SleepServer, 'beforeAcquire' | 'flood'>
  const hostOptions = {
    behaviour: (script: Parameters<typeof interpret>[0]) => interpret(script.script === 'flood' ? { ...script, script: mags.flood } : script),
    ...options,
    beforeAcquire: (spec: SandboxSpec, abort: AbortSignal | undefined) => mags.beforeAcquire(spec, abort),
  }
  const deps = {
    appsUrl: 'http://apps.localhost:4780',
    ssh: { host: 'ssh.example.org' },
    memoryAvailable: async () => 1,
    ...options.deps,
    timers,
    limits: { sleepCheckMs: checkMs, ...options.deps?.limits },
  }
  const server = await startTestServer({ ...hostOptions, deps })
  const mags: SleepServer = Object.assign(server, state, {
    timers,
    pass: async (ms: number) => {
      timers.pass(ms)
      await expect.poll(() => timers.pending.includes(checkMs), { timeout: 10_000 }).toBe(true)
      timers.end(checkMs)
      await expect.poll(() => timers.pending.includes(checkMs), { timeout: 10_000 }).toBe(true)
    },
  })
  return mags
}

/** A job whose script runs. */
export async function running(mags: TestServer, body: Record<string, unknown>): Promise<string> {
  const id = await mags.submit(body)
  await expect.poll(async () => (await mags.status(id)).status, poll).toBe('running')
  await lastsFor(mags, id)
  return id
}

/** Settles once its sandbox runs its script. */
export async function lastsFor(mags: TestServer, id: string): Promise<void> {
  await expect.poll(async () => (await mags.status(id)).attach_duration_ms, poll).not.toBe(null)
}

/** A persistent job whose script has ended. */
export async function resting(mags: TestServer, body: Record<string, unknown> = {}): Promise<string> {
  const id = await mags.submit({ script: 'echo', persistent: true, ...body })
  await expect.poll(async () => (await mags.status(id)).exit_code, poll).toBe(0)
  return id
}

export async function isSleeping(mags: TestServer, id: string): Promise<void> {
  await expect.poll(async () => (await mags.status(id)).status, poll).toBe('sleeping')
}
export const systemRows = async (mags: TestServer, id: string) => (await mags.rows(id, '?source=system')).logs.map(({ message }) => message)

export function onlySandbox(mags: { readonly host: FakeHost }): FakeSandbox {
  const [sandbox, ...others] = mags.host.sandboxes.values()
  if (sandbox === undefined || others.length > 0) throw new Error(`${others.length + Number(sandbox !== undefined)} sandboxes`)
  return sandbox
}
