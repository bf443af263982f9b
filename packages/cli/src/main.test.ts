import { once } from 'node:events'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { type FakeScript, FakeServer, sendJson } from './testing/fake-server.ts'
import { buildCli, newHome, runCli, startCli } from './testing/run-cli.ts'

const completed = { status: 'completed', exit_code: 0 }
const manyRows = Array.from({ length: 20_000 }, (_item, index) => ({ message: `line ${index}` }))
const scripts: Readonly<Record<string, FakeScript>> = {
  both: {
    rows: [{ message: 'out' }, { message: 'err', source: 'stderr' }, { message: 'over its memory', source: 'system' }],
    end: { status: 'error', exit_code: 3 },
  },
  bytes: { rows: [{ message: '\ufffd', base64: '/wA=', partial: true }, { message: 'é' }], end: completed },
  cut: { rows: [{ message: '1' }, { message: '2' }, { message: '3' }], cutAfter: 2, end: completed },
  many: { rows: manyRows, end: completed },
  endless: { rows: [{ message: 'begun' }] },
  lost: {
    rows: [{ message: 'the server stopped', source: 'system' }],
    end: { status: 'error', exit_code: null },
    status: { error: 'the server stopped', workspace_id: 'w', workspace_version: 0 },
  },
  unstartable: { end: { status: 'error', exit_code: null }, status: { error: 'no sandbox could be made: crun failed' } },
  deadline: { end: { status: 'error', exit_code: 124 } },
  service: { status: { persistent: true, url: 'http://0123456789ab.apps.example.org' } },
}

let home: Awaited<ReturnType<typeof newHome>>
let server: FakeServer

beforeAll(async () => {
  buildCli()
  home = await newHome()
  // The wall is explained once per machine; the test of that has a home of its own.
  await runCli(['run', 'x'], { server: await serverFor(), home: home.path })
})
beforeEach(serverFor)
afterAll(async () => {
  await server[Symbol.asyncDispose]()
  await home[Symbol.asyncDispose]()
})

async function serverFor() {
  await server?.[Symbol.asyncDispose]()
  server = await new FakeServer(scripts).listen()
  return server
}

const mags = (...args: string[]) => runCli(args, { server, home: home.path })

describe('mags run', () => {
  it('shows output apart and passes the exit code on', async () => {
    expect(await mags('run', 'both')).toEqual({ code: 3, stdout: 'out\n', stderr: 'err\nmags: over its memory\n' })
    expect((await mags('run', 'deadline')).code).toBe(124)
  })

  it('writes exact bytes', async () => {
    const { stdout } = await startCli(['run', 'bytes'], { server, home: home.path }).ended
    expect(stdout).toEqual(Buffer.concat([Buffer.from([0xff, 0]), Buffer.from('é\n')]))
  })

  it('loses and repeats nothing when the connection is cut', async () => {
    expect(await mags('run', 'cut')).toEqual({ code: 0, stdout: '1\n2\n3\n', stderr: '' })
    expect(server.seen('GET', /logs$/).map((request) => request.query.get('after'))).toEqual([null, '2'])
  })

  it('submits once though the answer is lost', async () => {
    let lost = 0
    server.intercept = (request, response) => {
      if (request.method !== 'POST' || lost++ > 0) return false
      response.destroy()
      return true
    }
    expect((await mags('run', 'both')).code).toBe(3)
    const keys = server.seen('POST', /^\/mags-jobs$/).map((request) => request.headers['idempotency-key'])
    expect(keys).toHaveLength(2)
    expect(keys[0]).toMatch(/^[0-9a-f-]{32,36}$/)
    expect(keys[1]).toBe(keys[0])
  })

  it('sends its flags', async () => {
    const flags = '-e -t 9 -n web --env A=b=c --env HOME --image alpine --isolation vm --vcpus 2 --memory 64 --disk 3 --port 80 --startup-command s'
    await mags('run', ...flags.split(' '), '-p', '--no-sleep', '--detach', 'echo', 'hi')
    expect(server.seen('POST', /^\/mags-jobs$/)[0]?.body).toEqual({
      script: 'echo hi',
      timeout: 9,
      name: 'web',
      environment: { A: 'b=c', HOME: home.path },
      image: 'alpine',
      isolation: 'vm',
      vcpus: 2,
      memory_mb: 64,
      disk_gb: 3,
      port: 80,
      startup_command: 's',
      persistent: true,
      no_sleep: true,
    })
  })

  it('takes the script from standard input or a file', async () => {
    expect((await runCli(['run', '-'], { server, home: home.path, input: 'both' })).code).toBe(3)
    expect((await runCli(['run'], { server, home: home.path, input: 'both' })).code).toBe(3)
    const file = join(home.path, 'script.sh')
    await writeFile(file, 'both')
    expect((await mags('run', '--script-file', file)).code).toBe(3)
    await writeFile(file, 'x'.repeat(1024 * 1024 + 1))
    expect(await mags('run', '--script-file', file)).toMatchObject({ code: 1, stderr: expect.stringContaining('longer than 1 MiB') })
    expect(await mags('run', '--script-file', `${file}.none`)).toMatchObject({ code: 2 })
  })

  it('says why a job without an exit code failed', async () => {
    expect(await mags('run', 'unstartable')).toEqual({ code: 1, stdout: '', stderr: 'mags: no sandbox could be made: crun failed\n' })
  })

  it('says once why it failed', async () => {
    expect(await mags('run', '-w', 'w', 'lost')).toEqual({ code: 1, stdout: '', stderr: 'mags: the server stopped\n' })
  })

  it('prints id and address of a persistent job and returns', async () => {
    expect(await mags('run', '-p', 'service')).toEqual({
      code: 0,
      stdout: '00000000-0000-4000-8000-000000000000\nhttp://0123456789ab.apps.example.org\n',
      stderr: '',
    })
    expect(await mags('run', '-p', 'unstartable')).toMatchObject({ code: 1, stdout: '' })
  })

  it('prints only the id with --detach, and answers of the API with --json', async () => {
    expect((await mags('run', '--detach', 'endless')).stdout).toBe('00000000-0000-4000-8000-000000000000\n')
    expect(JSON.parse((await mags('run', '--detach', '--json', 'endless')).stdout)).toMatchObject({ status: 'accepted' })
    const { code, stdout, stderr } = await mags('run', '--json', 'both')
    expect([code, stderr]).toEqual([3, ''])
    expect(JSON.parse(stdout)).toMatchObject({ exit_code: 3, logs: [{ message: 'out' }, { source: 'stderr' }, { source: 'system' }] })
    expect(stdout).not.toContain('exitCode')
  })

  it('says once per machine that a container is the weaker wall', async () => {
    await using fresh = await newHome()
    const first = await runCli(['run', 'x'], { server, home: fresh.path })
    expect(first.stderr).toContain("container isolation: the sandbox shares this host's kernel")
    expect((await runCli(['run', 'x'], { server, home: fresh.path })).stderr).toBe('')
  })
})

describe('interruption', () => {
  it('stops the job on Ctrl-C and exits 130', async () => {
    const run = startCli(['run', 'endless'], { server, home: home.path })
    await once(run.child.stdout ?? run.child, 'data')
    run.child.kill('SIGINT')
    const { code, stderr } = await run.ended
    expect(code).toBe(130)
    expect(stderr).toContain('stopping job 00000000')
    expect(stderr).toContain('the job is stopped')
    expect(server.seen('POST', /stop$/)).toHaveLength(1)
  })

  it('leaves at once on the second Ctrl-C', async () => {
    // A server that never answers the stop.
    server.intercept = (request) => request.path.endsWith('/stop')
    const run = startCli(['run', 'endless'], { server, home: home.path })
    await once(run.child.stdout ?? run.child, 'data')
    run.child.kill('SIGINT')
    await run.stderrHas('stopping job')
    run.child.kill('SIGINT')
    expect((await run.ended).code).toBe(130)
  })

  it('ends quietly, and ends the job, when nobody reads on', async () => {
    const run = startCli(['run', 'many'], { server, home: home.path })
    await once(run.child.stdout ?? run.child, 'data')
    run.child.stdout?.destroy()
    const { code, stderr } = await run.ended
    expect({ code, stderr }).toEqual({ code: 141, stderr: '' })
    expect(server.seen('POST', /stop$/)).toHaveLength(1)
  })

  it('ends following a log, and not the job, on Ctrl-C', async () => {
    await mags('run', '--detach', '-n', 'web', 'endless')
    const run = startCli(['logs', '-f', 'web'], { server, home: home.path })
    await once(run.child.stdout ?? run.child, 'data')
    run.child.kill('SIGINT')
    expect(await run.ended).toMatchObject({ code: 130, stderr: '' })
    expect(server.seen('POST', /stop$/)).toHaveLength(0)
  })
})

describe('other commands', () => {
  it('show jobs', async () => {
    await mags('run', '-n', 'web', 'both')
    expect((await mags('list')).stdout).toMatch(/^NAME +STATUS +EXIT +WORKSPACE +ID +CREATED\nweb +error +3 +- /)
    expect(JSON.parse((await mags('list', '--json')).stdout)).toMatchObject({ total: 1, page_size: 20 })
    expect((await mags('status', 'web')).stdout).toMatch(/^status: +error$/m)
    expect((await mags('logs', 'web')).stdout).toBe('out\n')
    expect(JSON.parse((await mags('logs', 'web', '--json')).stdout).logs[0]).toMatchObject({ message: 'out' })
    expect(await mags('logs', '-f', 'web')).toEqual({ code: 0, stdout: 'out\n', stderr: 'err\nmags: over its memory\n' })
    expect((await mags('stop', 'web')).stdout).toBe('Job stopped\n')
    expect((await mags('pool')).stdout).toContain("container (shares the host's kernel)")
    expect((await mags('version')).stdout).toMatch(/^mags \d+\.\d+\.\d+\n$/)
  })

  it('run a command, with standard input, and pass its exit code on', async () => {
    server.intercept = (request, response) => {
      if (!request.path.endsWith('/exec')) return false
      if (request.query.get('stream') !== 'true') sendJson(response, 200, { exit_code: 4, stdout: 'o', stderr: '', duration_ms: 1, truncated: false })
      else
        response.end(
          'event: log\ndata: {"source":"stdout","message":"o","partial":true}\n\nevent: log\ndata: {"source":"stderr","message":"e"}\n\nevent: end\ndata: {"exit_code":4}\n\n',
        )
      return true
    }
    expect(await mags('exec', '-t', '5', 'web', 'ls', '-la')).toEqual({ code: 4, stdout: 'o', stderr: 'e\n' })
    expect(server.requests.at(-1)?.body).toEqual({ command: 'ls -la', timeout_seconds: 5 })
    await runCli(['exec', 'web', 'cat'], { server, home: home.path, input: 'hello' })
    expect(server.requests.at(-1)?.body).toEqual({ command: 'cat', stdin: 'hello' })
    expect(await mags('exec', '--json', 'web', 'x')).toMatchObject({
      code: 4,
      stdout: '{"exit_code":4,"stdout":"o","stderr":"","duration_ms":1,"truncated":false}\n',
    })
  })
})

describe('failures', () => {
  it('of usage exit 2 with the nearest name', async () => {
    expect(await mags('rnu')).toEqual({ code: 2, stdout: '', stderr: "mags: unknown command 'rnu' (did you mean run?). See 'mags --help'.\n" })
    expect((await mags('run', '--jsno', 'x')).stderr).toContain("(did you mean --json?). See 'mags run --help'.")
    expect((await mags('cron', 'add')).stderr).toContain("See 'mags cron add --help'.")
    expect((await mags('url', 'alias', 'ls', 'x')).stderr).toContain("See 'mags url alias list --help'.")
    expect((await mags('ls', '--page', '0')).stderr).toContain("See 'mags list --help'.")
    expect(await mags('status', '')).toEqual({ code: 2, stdout: '', stderr: 'mags: The id or name of a job must not be empty.\n' })
    expect(await mags('run')).toMatchObject({ code: 2, stderr: expect.stringContaining("mags run 'echo hello'") })
    expect(await mags('run', '-t', 'soon', 'x')).toMatchObject({ code: 2 })
    expect(await mags('run', '--no-sleep', 'x')).toMatchObject({ code: 2, stderr: expect.stringContaining('--persistent') })
    expect(await mags('status')).toMatchObject({ code: 2 })
    expect(server.seen('POST', /^\/mags-jobs$/)).toHaveLength(0)
  })

  it('of what is not there yet exit 2 and say so', async () => {
    expect(await mags('mcp')).toMatchObject({ code: 2, stderr: "mags: 'mags mcp' is not available yet.\n" })
  })

  it('of the server exit 1, as text or as JSON', async () => {
    expect(await mags('status', 'nope')).toEqual({ code: 1, stdout: '', stderr: "mags: no job 'nope'\n" })
    expect(await mags('status', 'nope', '--json')).toEqual({ code: 1, stdout: '', stderr: '{"error":"no job \'nope\'","code":"not_found"}\n' })
    expect(JSON.parse((await mags('run', '--json')).stderr)).toMatchObject({ code: 'usage' })
    const wrongToken = await runCli(['list'], { server, home: home.path, env: { MAGS_API_TOKEN: 'wrong' } })
    expect(wrongToken).toMatchObject({ code: 1, stderr: expect.stringContaining('Set MAGS_API_TOKEN') })
  })

  it('of a server that the environment names and nobody runs are clear', async () => {
    const { apiUrl } = server
    await server[Symbol.asyncDispose]()
    const result = await runCli(['run', 'x'], { home: home.path, env: { MAGS_API_URL: apiUrl, MAGS_API_TOKEN: 't' } })
    await server.listen()
    expect(result).toMatchObject({ code: 1, stdout: '', stderr: expect.stringContaining(`No Mags server answers at ${apiUrl}`) })
  })
})
