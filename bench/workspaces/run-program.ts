import { spawn } from 'node:child_process'
import { once } from 'node:events'

/** Runs a program to its end; resolves with the milliseconds it took, rejects when it fails. */
export async function runProgram(command: string, args: readonly string[], environment: Record<string, string> = {}): Promise<number> {
  const begin = performance.now()
  const child = spawn(command, args, { stdio: ['ignore', 'ignore', 'pipe'], env: { ...process.env, ...environment } })
  let words = ''
  child.stderr.on('data', (bytes: Buffer) => {
    words = (words + bytes).slice(-2000)
  })
  const [code] = (await once(child, 'close')) as [number | null]
  if (code !== 0) throw new Error(`${command} ${args.join(' ').slice(0, 80)}: exit ${code}: ${words}`)
  return performance.now() - begin
}
