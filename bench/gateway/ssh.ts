import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdir, writeFile } from 'node:fs/promises'
import { userInfo } from 'node:os'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { openSshGateway } from '@mags/gateway'
import { type Row, sample } from '../kit/statistics.ts'
import { BenchDirectory } from './bench-directory.ts'
import { runProgram } from './run-program.ts'
import { freePort, type Stage, serverPort } from './stage.ts'

interface Place {
  readonly name: string
  readonly user: string
  readonly port: number
}

/** OpenSSH's client against the gateway and against OpenSSH's server on this machine: what lies between the two is ours. */
export async function measureSsh(stage: Stage, runs: number): Promise<Row[]> {
  const staged = await stage.start()
  const home = join(stage.dir, 'ssh')
  await mkdir(home, { recursive: true, mode: 0o700 })
  const key = join(home, 'key')
  await runProgram('ssh-keygen', ['-q', '-t', 'ed25519', '-N', '', '-f', key])
  const directory = new BenchDirectory()
  directory.add('bench', staged.sandbox, serverPort)
  const gateway = await openSshGateway({ directory, hostKeyFile: join(home, 'gateway-key'), logger: stage.logger, host: '127.0.0.1', sharedPort: 0 })
  const server = await startServer(home, key)
  try {
    const rows: Row[] = []
    const places = [
      { name: `gateway (${stage.isolation})`, user: 'bench', port: gateway.sharedPort ?? 0 },
      { name: 'OpenSSH on this machine', user: userInfo().username, port: server.port },
    ]
    for (const place of places) rows.push(...(await measurePlace(place, home, key, runs)))
    return rows
  } finally {
    await server.stop()
    await gateway.close()
    await staged.sandbox.destroy()
  }
}

async function measurePlace({ name, user, port }: Place, home: string, key: string, runs: number): Promise<Row[]> {
  const options = ['BatchMode=yes', 'StrictHostKeyChecking=no', 'UserKnownHostsFile=/dev/null', 'LogLevel=ERROR', 'IdentitiesOnly=yes'].flatMap((each) => [
    '-o',
    each,
  ])
  const base = ['-F', 'none', '-i', key, '-p', `${port}`, ...options]
  const control = join(home, `control-${port}`)
  const connect = () => timed(() => runProgram('ssh', [...base, `${user}@127.0.0.1`, 'true']))
  const connected = await sample(`${name}: connect, run \`true\`, end`, runs, connect)
  const prompt = await sample(`${name}: connect to the first byte of a shell`, runs, () => untilPrompt([...base, '-tt', `${user}@127.0.0.1`]))
  const master = spawn('ssh', [...base, '-M', '-N', '-S', control, `${user}@127.0.0.1`], { stdio: 'ignore' })
  try {
    const over = () => runProgram('ssh', ['-F', 'none', '-S', control, `${user}@127.0.0.1`, 'true'])
    const isOpen = () =>
      runProgram('ssh', ['-F', 'none', '-S', control, '-O', 'check', `${user}@127.0.0.1`]).then(
        () => true,
        () => false,
      )
    while (!(await isOpen())) await delay(20)
    return [connected, prompt, await sample(`${name}: exec over an open connection (with the start of the client)`, runs, () => timed(over))]
  } finally {
    const ended = once(master, 'exit')
    master.kill('SIGTERM')
    await ended
  }
}

async function timed(work: () => Promise<unknown>): Promise<number> {
  const begin = performance.now()
  await work()
  return performance.now() - begin
}

async function untilPrompt(args: readonly string[]): Promise<number> {
  const begin = performance.now()
  const child = spawn('ssh', args, { stdio: ['pipe', 'pipe', 'ignore'], timeout: 20_000 })
  const ended = once(child, 'exit')
  await Promise.race([once(child.stdout, 'data'), ended.then(([code]) => Promise.reject(new Error(`ssh ended with ${code}`)))])
  const took = performance.now() - begin
  child.kill('SIGTERM')
  await ended
  return took
}

async function startServer(home: string, key: string) {
  const port = await freePort()
  const hostKey = join(home, 'sshd-key')
  await runProgram('ssh-keygen', ['-q', '-t', 'ed25519', '-N', '', '-f', hostKey])
  const config = `Port ${port}\nListenAddress 127.0.0.1\nHostKey ${hostKey}\nAuthorizedKeysFile ${key}.pub\nStrictModes no\nUsePAM no\nPermitRootLogin yes\nPidFile none\nPrintMotd no\nMaxStartups 100\n`
  await writeFile(join(home, 'sshd_config'), config)
  await mkdir('/run/sshd', { recursive: true })
  const child = spawn('/usr/sbin/sshd', ['-D', '-f', join(home, 'sshd_config')], { stdio: 'ignore' })
  const ended = once(child, 'exit')
  return {
    port,
    stop: async () => {
      child.kill('SIGTERM')
      await ended
    },
  }
}
