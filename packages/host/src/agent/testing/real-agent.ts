import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { connectAgent } from '../connect-agent.ts'
import type { AgentConnection } from '../connection.ts'

export const releaseBuild = join(import.meta.dirname, '../../../../../native/build')
/** Another folder for builds with sanitizers. */
export const nativeBuild = process.env.MAGS_NATIVE_BUILD ?? releaseBuild

/** Whether tests against the real programs are left out, which is said; with MAGS_REQUIRE_NATIVE=1 it is an error instead. `more`: what else is missing. */
export function cannotTestAgent(what: string, build = nativeBuild, more: readonly string[] = []): boolean {
  const lacking = ['agent', 'mounter'].filter((name) => !existsSync(join(build, name))).map((name) => `native/build/${name} (build native/ first)`)
  const missing = [...lacking, ...more]
  if (missing.length === 0) return false
  if (process.env.MAGS_REQUIRE_NATIVE === '1') throw new Error(`MAGS_REQUIRE_NATIVE is set, but ${what} need ${missing.join(' and ')}`)
  console.warn(`skipped: ${what} need ${missing.join(' and ')}`)
  return true
}

/** The binary of native/agent as an ordinary process. */
export interface RealAgent extends AsyncDisposable {
  /** One connection at a time. */
  connect(): Promise<AgentConnection>
}

/** Starts it as the mounter does, with its listening socket as descriptor 3. */
export function startRealAgent(build: string, socket: string, command: readonly string[]): RealAgent {
  const program = spawn(join(build, 'mounter'), ['listen', socket, ...command], { stdio: ['ignore', 'inherit', 'inherit'] })
  return {
    connect: () => connectSoon(program, socket),
    async [Symbol.asyncDispose]() {
      if (program.exitCode !== null || program.signalCode !== null) return
      const exited = once(program, 'exit')
      program.kill('SIGKILL')
      await exited
    },
  }
}

/** The socket appears, and takes connections, a moment after the program's start. */
async function connectSoon(program: ChildProcess, socket: string): Promise<AgentConnection> {
  for (;;) {
    try {
      return await connectAgent(socket)
    } catch (error) {
      const { cause } = error as { cause?: { code?: string } }
      if (cause?.code !== 'ENOENT' && cause?.code !== 'ECONNREFUSED') throw error
      if (program.exitCode !== null) throw new Error(`the agent ended with ${program.exitCode}`)
      await new Promise((resolve) => setImmediate(resolve))
    }
  }
}
