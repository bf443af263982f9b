import { CliError } from '../exit/cli-error.ts'

export interface ServerOptions {
  readonly host?: string
  readonly port?: number
  readonly dataDir?: string
}

/** What the daemon package gives us. Both resolve with an exit code. */
export interface Daemon {
  runServer(options: ServerOptions): Promise<number>
  runDoctor(options: { json: boolean; fix?: boolean }): Promise<number>
}

/** Loads the daemon, which only `server` and `doctor` need; a machine that is only a client can do without it. */
export async function loadDaemon(): Promise<Daemon> {
  // In a variable: the compiler must not need the daemon to build the client.
  const daemonPackage = '@mags/daemon'
  try {
    return (await import(daemonPackage)) as Daemon
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException
    if (code !== 'ERR_MODULE_NOT_FOUND' || !message.includes('@mags/daemon')) throw error
    throw new CliError("the server is not installed here. In a clone of the repository './mags server' builds it.", { code: 'not_available', cause: error })
  }
}
