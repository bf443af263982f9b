import { once } from 'node:events'
import { mkdir, writeFile } from 'node:fs/promises'
import { createServer } from 'node:net'
import { dirname, join } from 'node:path'
import { describe, expect, it } from 'vitest'
import type { Cli } from '../cli.ts'
import { Interrupts } from '../terminal/interrupts.ts'
import { Output } from '../terminal/output.ts'
import { newHome } from '../testing/run-cli.ts'
import { lastLines } from './last-lines.ts'
import { claimStart } from './start-claim.ts'
import { startLocalServer } from './start-local-server.ts'

/** Answers the health route; its process id is in the answer's version. */
const daemon = `
  const { createServer } = require('node:http')
  const port = Number(process.argv[process.argv.indexOf('--port') + 1])
  console.log('pid ' + process.pid)
  createServer((request, response) => response.end(JSON.stringify({ status: 'ok', version: '0', isolation: 'container' }))).listen(port, '127.0.0.1')
`
const dying = `console.log(JSON.stringify({ level: 30, msg: 'starting' })); console.error('mags: the disk is full'); process.exitCode = 1`

async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as { port: number }
  server.close()
  await once(server, 'close')
  return port
}

async function setUp(source: string) {
  const home = await newHome()
  const script = join(home.path, 'daemon.cjs')
  await writeFile(script, source)
  let stderr = ''
  const stream = {
    on: () => undefined,
    write: (bytes: string | Uint8Array, done: () => void) => {
      stderr += bytes.toString()
      done()
      return true
    },
  }
  const cli: Cli = { env: {}, output: new Output({ stdout: stream, stderr: stream }, {}), interrupts: new Interrupts() }
  const config = { apiUrl: `http://127.0.0.1:${await freePort()}`, configFile: join(home.path, '.mags', 'config.json') }
  const logFile = join(home.path, '.mags', 'server.log')
  return {
    start: () => startLocalServer(cli, config, undefined, [process.execPath, script]),
    logFile,
    stderr: () => stderr,
    started: () => lastLines(logFile, 10).map((line) => Number(line.replace('pid ', ''))),
    [Symbol.asyncDispose]: () => home[Symbol.asyncDispose](),
  }
}

describe('startLocalServer', () => {
  it('starts one server though several want it at once, and leaves it running', async () => {
    await using setup = await setUp(daemon)
    await Promise.all([setup.start(), setup.start(), setup.start()])
    await setup.start()
    const pids = setup.started()
    expect(pids).toHaveLength(1)
    expect(setup.stderr()).toContain(`process ${pids[0]}`)
    process.kill(pids[0] ?? 0)
  })

  it('fails with the last words of a server that dies', async () => {
    await using setup = await setUp(dying)
    await mkdir(dirname(setup.logFile), { recursive: true })
    await writeFile(setup.logFile, 'of an earlier server\n')
    await expect(setup.start()).rejects.toThrow(/ended while starting \(exit code 1\)[^\n]*\n {2}starting\n {2}mags: the disk is full\n/)
  })
})

describe('claimStart', () => {
  it('is given to one, and taken over from the dead', async () => {
    await using home = await newHome()
    const file = join(home.path, 'claim')
    const first = claimStart(file)
    expect(first).toBeDefined()
    expect(claimStart(file)).toBe(undefined)
    first?.[Symbol.dispose]()
    // Above the highest process id that Linux gives (proc_sys_kernel(5)).
    await writeFile(file, '4194305\n')
    using second = claimStart(file)
    expect(second).toBeDefined()
  })
})
