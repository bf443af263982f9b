import { readFileSync } from 'node:fs'
import { Command } from 'commander'
import type { CommandDefinition } from '../cli.ts'

export const versionCommand: CommandDefinition = (cli, done) =>
  new Command('version')
    .summary('print the version')
    .description('Prints the version of this program.')
    .option('--json', 'print it as JSON')
    .action(async () => {
      const version = readVersion()
      await (cli.output.json ? cli.output.data({ version }) : cli.output.out(`mags ${version}\n`))
      done(0)
    })

export function readVersion(): string {
  const { version } = JSON.parse(readFileSync(new URL('../../package.json', import.meta.url), 'utf8')) as { version: string }
  return version
}
