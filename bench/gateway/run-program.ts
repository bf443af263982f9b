import { execFile } from 'node:child_process'

/** Its standard output; rejects with its last words when it ends with anything but 0. */
export function runProgram(command: string, args: readonly string[], timeoutMs = 120_000): Promise<string> {
  return new Promise((resolve, reject) => {
    execFile(command, args, { timeout: timeoutMs, maxBuffer: 16 << 20 }, (error, stdout, stderr) =>
      error === null ? resolve(stdout) : reject(new Error(`${command}: ${error.message} ${stderr}`)),
    )
  })
}
