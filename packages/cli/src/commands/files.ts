import { Command } from 'commander'
import type { Cli, CommandDefinition } from '../cli.ts'
import { openSession } from '../server/session.ts'
import { confirm } from '../terminal/confirm.ts'
import { formatBytes } from '../terminal/format-bytes.ts'
import { table } from '../terminal/table.ts'
import { type PageFlags, paged, sayMore } from './paging.ts'

type Done = Parameters<CommandDefinition>[1]

export const filesCommand: CommandDefinition = (cli, done) => {
  const command = new Command('files')
    .summary('list, upload and delete uploaded files')
    .description("Uploaded files: kept by the server, named by jobs. For files in a sandbox see 'mags cp'.")
  for (const define of [list, upload, remove]) command.addCommand(define(cli, done))
  return command
}

function list(cli: Cli, done: Done): Command {
  return paged(new Command('list').alias('ls').summary('list uploaded files, newest first'), 'files').action(async ({ page, pageSize }: PageFlags) => {
    const { first: answer } = await openSession(cli, (mags) => mags.listUploadedFiles({ page, pageSize, signal: cli.interrupts.requested }))
    if (cli.output.json) await cli.output.data(answer)
    else {
      const rows = answer.files.map((file) => [file.file_name, formatBytes(file.size), file.file_id, file.created_at, file.last_used_at])
      await cli.output.out(table(['NAME', 'SIZE', 'ID', 'CREATED', 'LAST USED'], rows))
      await sayMore(cli, answer, answer.files.length)
    }
    done(0)
  })
}

function upload(cli: Cli, done: Done): Command {
  return new Command('upload')
    .summary('upload files, and print their ids')
    .description('Uploads files, all or none, and prints their ids. Those go into file_ids of a job, which then finds them in /root.')
    .argument('<path...>', 'files of this machine, 100 MB each at most')
    .option('--json', 'print the answers of the API')
    .action(async (paths: string[]) => {
      const { checkFiles } = await import('../run/check-files.ts')
      const { uploadPaths } = await import('../run/upload-files.ts')
      checkFiles(paths)
      const { first: files } = await openSession(cli, (mags) => uploadPaths(cli, mags, paths))
      if (cli.output.json) await cli.output.data(files)
      else await cli.output.out(files.map((file) => `${file.file_id}\n`).join(''))
      done(0)
    })
}

function remove(cli: Cli, done: Done): Command {
  return new Command('delete')
    .alias('rm')
    .summary('delete an uploaded file')
    .argument('<id>', 'id of the file')
    .option('-y, --yes', 'do not ask')
    .option('--json', 'print the answer of the API')
    .action(async (id: string, flags: { yes?: boolean }) => {
      await confirm(cli, `The uploaded file ${id} will be deleted.`, { yes: flags.yes === true })
      await openSession(cli, (mags) => mags.deleteUploadedFile(id, { signal: cli.interrupts.requested }))
      await (cli.output.json ? cli.output.data({ success: true }) : cli.output.out('File deleted\n'))
      done(0)
    })
}
