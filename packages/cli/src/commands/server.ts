import { defaultApiUrl, resolveConfig } from '@mags/sdk'
import { Command } from 'commander'
import type { Cli, CommandDefinition } from '../cli.ts'
import { loadDaemon, type ServerOptions } from '../server/load-daemon.ts'
import { wholeNumber } from './flag-values.ts'

interface ServerFlags extends ServerOptions {
  readonly background?: boolean
}

export const serverCommand: CommandDefinition = (cli, done) =>
  new Command('server')
    .summary('run the server on this machine')
    .description('Runs the server on this machine, in the foreground. It writes its token to ~/.mags/config.json.')
    .option('--host <address>', 'address to listen on (127.0.0.1)')
    .option('--port <port>', 'port to listen on (4747); 0 takes a free one', wholeNumber(0, 65_535))
    .option('--data-dir <folder>', 'where jobs, logs and workspaces are kept (/var/lib/mags/data)')
    .option('--background', 'return once it answers, and print its address')
    .action(async ({ background, ...options }: ServerFlags) => {
      if (background) await startInBackground(cli, options)
      else done(await (await loadDaemon()).runServer(options))
    })

async function startInBackground(cli: Cli, { host, port, dataDir }: ServerOptions): Promise<void> {
  const { startLocalServer } = await import('../server/start-local-server.ts')
  const { resolve } = await import('node:path')
  cli.interrupts.listen()
  const { HOME, MAGS_PORT, MAGS_HOST } = cli.env
  const config = resolveConfig({ env: { HOME, MAGS_PORT } })
  const url = new URL(config.apiUrlSource === 'port' ? config.apiUrl : defaultApiUrl)
  const address = host ?? MAGS_HOST
  if (address && address !== '0.0.0.0' && address !== '::') url.hostname = address.includes(':') ? `[${address}]` : address
  if (port !== undefined) url.port = String(port)
  const args = [
    ...(host === undefined ? [] : ['--host', host]),
    ...['--port', url.port || '80'],
    // The server does not start in this folder.
    ...(dataDir === undefined ? [] : ['--data-dir', resolve(dataDir)]),
  ]
  await startLocalServer(cli, { apiUrl: url.origin, configFile: config.configFile }, args)
  await cli.output.out(`${url.origin}\n`)
}
