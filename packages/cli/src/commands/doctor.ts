import { Command } from 'commander'
import type { CommandDefinition } from '../cli.ts'
import { loadDaemon } from '../server/load-daemon.ts'

export const doctorCommand: CommandDefinition = (_cli, done) =>
  new Command('doctor')
    .summary('check what this machine can do')
    .description('Checks this machine part by part and says what was found and what to do.')
    .option('--fix', 'repair what can be repaired')
    .option('--json', 'print the findings as JSON')
    .action(async (flags: { json?: boolean; fix?: boolean }) => {
      const { runDoctor } = await loadDaemon()
      done(await runDoctor({ json: flags.json === true, ...(flags.fix ? { fix: true } : {}) }))
    })
