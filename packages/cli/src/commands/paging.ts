import type { Command } from 'commander'
import type { Cli } from '../cli.ts'
import { wholeNumber } from './flag-values.ts'

export interface PageFlags {
  readonly page?: number
  readonly pageSize?: number
}

export const jsonToo = (command: Command) => command.option('--json', 'print the answer of the API')

/** Flags of a list; `rows` is what it lists. */
export function paged(command: Command, rows: string): Command {
  return jsonToo(command)
    .option('--page <number>', 'which page, from 1', wholeNumber(1))
    .option('--page-size <count>', `${rows} on a page (20)`, wholeNumber(1, 100))
}

/** Says on a terminal that a list goes on. */
export async function sayMore(
  cli: Cli,
  { page, page_size: pageSize, total }: { page: number; page_size: number; total: number },
  shown: number,
): Promise<void> {
  if ((page - 1) * pageSize + shown < total) await cli.output.aside(`${shown} of ${total}; --page ${page + 1} shows the next`)
}
