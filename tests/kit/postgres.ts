import { spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { chownSync, existsSync, mkdtempSync, readdirSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'

/** A PostgreSQL server of its own for a test file, on a unix socket in a folder that goes with it. */
export interface TestPostgres extends AsyncDisposable {
  /** Address of a new, empty database. */
  createDatabase(): string
}

/** Why there is no PostgreSQL on this machine, or undefined. With MAGS_REQUIRE_POSTGRES=1 that is an error instead. */
export function whyNoPostgres(): string | undefined {
  if (binaries() !== undefined) return undefined
  const reason = "no PostgreSQL server programs under /usr/lib/postgresql; install Debian's package postgresql"
  if (process.env.MAGS_REQUIRE_POSTGRES === '1') throw new Error(reason)
  console.warn(`PostgreSQL tests are skipped: ${reason}`)
  return reason
}

/** Starts one; takes about two seconds. */
export async function startPostgres(): Promise<TestPostgres> {
  const folder = binaries()
  if (folder === undefined) throw new Error('PostgreSQL is not installed')
  await using undo = new AsyncDisposableStack()
  const directory = mkdtempSync(join(tmpdir(), 'mags-postgres-'))
  undo.defer(() => rmSync(directory, { recursive: true, force: true }))
  const user = serverUser()
  if (user) chownSync(directory, user.uid, user.gid)
  const data = join(directory, 'data')
  const program = (name: string, args: readonly string[]) => {
    const result = spawnSync(join(folder, name), args, { ...user, cwd: directory, encoding: 'utf8', env: { PATH: '/usr/bin:/bin', LC_ALL: 'C' } })
    if (result.status !== 0) throw new Error(`${name}: ${result.stderr}`)
  }
  program('initdb', ['-D', data, '-U', 'postgres', '-A', 'trust', '-E', 'UTF8', '--no-sync'])
  const server = spawn(join(folder, 'postgres'), ['-D', data, '-k', directory, '-c', 'listen_addresses=', '-c', 'fsync=off'], {
    ...user,
    cwd: directory,
    stdio: ['ignore', 'ignore', 'pipe'],
    env: { PATH: '/usr/bin:/bin', LC_ALL: 'C' },
  })
  const ended = once(server, 'exit')
  undo.defer(async () => {
    server.kill('SIGINT')
    await ended
  })
  let words = ''
  await new Promise<void>((resolve, reject) => {
    server.stderr.on('data', (chunk: Buffer) => {
      words = `${words}${chunk}`.slice(-4000)
      if (words.includes('ready to accept connections')) resolve()
    })
    void ended.then(() => reject(new Error(`postgres ended: ${words}`)))
    void delay(30_000, undefined, { ref: false }).then(() => reject(new Error(`postgres is not ready: ${words}`)))
  })
  const kept = undo.move()
  let count = 0
  return {
    createDatabase: () => {
      const name = `test_${++count}`
      program('createdb', ['-h', directory, '-U', 'postgres', name])
      return `postgres://postgres@/${name}?host=${encodeURIComponent(directory)}`
    },
    [Symbol.asyncDispose]: () => kept.disposeAsync(),
  }
}

function binaries(): string | undefined {
  const root = '/usr/lib/postgresql'
  if (!existsSync(root)) return undefined
  const [newest] = readdirSync(root).sort((a, b) => Number(b) - Number(a))
  const folder = newest === undefined ? undefined : join(root, newest, 'bin')
  return folder !== undefined && existsSync(join(folder, 'initdb')) ? folder : undefined
}

/** PostgreSQL refuses to run as root: then as the user its package made. */
function serverUser(): { uid: number; gid: number } | undefined {
  if (process.getuid?.() !== 0) return undefined
  const id = (option: string) => Number(spawnSync('id', [option, 'postgres'], { encoding: 'utf8' }).stdout)
  return { uid: id('-u'), gid: id('-g') }
}
