import { spawn } from 'node:child_process'
import { constants } from 'node:os'
import type { Cli } from '../cli.ts'
import { CliError } from '../exit/cli-error.ts'

/** Runs OpenSSH's client on our own terminal; returns its exit code. */
export async function runSsh(cli: Cli, args: readonly string[]): Promise<number> {
  const child = spawn('ssh', args, { stdio: 'inherit', env: { ...cli.env } })
  // A terminal's Ctrl-C reaches it without us.
  const end = () => void child.kill('SIGTERM')
  cli.interrupts.requested.addEventListener('abort', end, { once: true })
  try {
    return await new Promise<number>((resolve, reject) => {
      child.once('error', (error) => reject(isMissing(error) ? noClient() : error))
      child.once('close', (code, signal) => resolve(signal === null ? (code ?? 1) : 128 + constants.signals[signal]))
    })
  } finally {
    cli.interrupts.requested.removeEventListener('abort', end)
  }
}

function isMissing(error: Error): boolean {
  return 'code' in error && error.code === 'ENOENT'
}

function noClient(): CliError {
  return new CliError(
    "OpenSSH's client (the program 'ssh') is not on this machine. Install it: 'apt install openssh-client' (Debian, Ubuntu), 'dnf install openssh-clients' (Fedora), " +
      "'apk add openssh-client' (Alpine); macOS has it, Windows has it under optional features. 'mags exec' works without.",
    { code: 'ssh_missing' },
  )
}
