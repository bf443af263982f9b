import { MagsError } from '@mags/protocol'
import { describe, expect, it } from 'vitest'
import { startTestServer, type TestServer } from '../testing/test-server.ts'

const until = <T>(probe: () => T) => expect.poll(probe, { timeout: 10_000, interval: 5 })
const unavailable = () => new MagsError('object_store_unavailable', 'the object store does not answer')

async function run(mags: TestServer, body: Record<string, unknown>) {
  const status = await mags.ended(await mags.submit(body))
  const output = (await mags.rows(status.request_id, '?source=stdout')).logs.map(({ message }) => message)
  return { ...status, output }
}

const running = async (mags: TestServer, body: Record<string, unknown>) => {
  const id = await mags.submit(body)
  await until(async () => (await mags.status(id)).status).toBe('running')
  return id
}

const workspace = async (mags: TestServer, id: string) => (await mags.call('GET', `/mags-workspaces/${id}`)).body

describe('the four modes', () => {
  it('keeps nothing of an ephemeral job', async () => {
    await using mags = await startTestServer()
    expect(await run(mags, { script: 'write /a 1' })).toMatchObject({ status: 'completed', workspace_id: null, workspace_version: null, synced_at: null })
    expect(await run(mags, { script: 'read /a' })).toMatchObject({ output: ['nothing'] })
    expect(mags.host.workspaces.attempts).toBe(0)
  })

  it('goes on with a workspace', async () => {
    await using mags = await startTestServer()
    expect(await run(mags, { script: 'write /a one', workspace_id: 'w' })).toMatchObject({
      status: 'completed',
      workspace_id: 'w',
      base_workspace_id: null,
      workspace_version: 1,
      workspace_unsaved_since: null,
      workspace_size_bytes: 3,
      workspace_bytes_uploaded: 3,
      synced_at: expect.stringMatching(/^20.*Z$/),
    })
    expect(await run(mags, { script: 'read /a\nwrite /b two', workspace_id: 'w' })).toMatchObject({ output: ['one'], workspace_version: 2 })
    expect(await workspace(mags, 'w')).toEqual({
      workspace_id: 'w',
      size_bytes: 6,
      version: 2,
      created_at: expect.any(String),
      updated_at: expect.any(String),
      synced_at: expect.any(String),
      in_use_by: null,
      base_workspace_id: null,
      scope: null,
      image: 'debian-12',
      disk_gb: 2,
      unsaved_since: null,
      save_error: null,
    })
  })

  it('starts any number from a base and never changes it', async () => {
    await using mags = await startTestServer()
    await run(mags, { script: 'write /a one', workspace_id: 'base' })
    const ids = await Promise.all(
      Array.from({ length: 10 }, (_, index) => mags.submit({ script: `read /a\nwrite /a ${index}\nread /a`, base_workspace_id: 'base' })),
    )
    for (const [index, id] of ids.entries()) {
      expect(await mags.ended(id)).toMatchObject({ status: 'completed', workspace_id: null, base_workspace_id: 'base', workspace_version: null })
      expect((await mags.rows(id)).logs.map(({ message }) => message)).toEqual(['one', String(index)])
    }
    expect(await workspace(mags, 'base')).toMatchObject({ version: 1 })
  })

  it('forks: starts from the base, is saved as the workspace', async () => {
    await using mags = await startTestServer()
    await run(mags, { script: 'write /a one', workspace_id: 'base' })
    expect(await run(mags, { script: 'read /a\nwrite /a two', workspace_id: 'w', base_workspace_id: 'base' })).toMatchObject({ output: ['one'] })
    expect(await workspace(mags, 'w')).toMatchObject({ version: 1, base_workspace_id: 'base' })
    expect(await run(mags, { script: 'read /a', workspace_id: 'w' })).toMatchObject({ output: ['two'] })
    expect(await run(mags, { script: 'read /a', base_workspace_id: 'base' })).toMatchObject({ output: ['one'] })
    // Once more on a workspace that is there: its contents are those of the base again, and what it had stays a version.
    expect(await run(mags, { script: 'read /a\nwrite /c x', workspace_id: 'w', base_workspace_id: 'base' })).toMatchObject({ output: ['one'] })
    expect(await mags.call('GET', '/mags-workspaces/w/versions')).toMatchObject({ body: { total: 2, versions: [{ version: 2 }, { version: 1 }] } })
  })

  it('starts from the newest saved version of a base that is in use', async () => {
    await using mags = await startTestServer()
    await run(mags, { script: 'write /a one', workspace_id: 'base' })
    const id = await running(mags, { script: 'write /a two\nwait', workspace_id: 'base' })
    expect(await run(mags, { script: 'read /a', base_workspace_id: 'base' })).toMatchObject({ output: ['one'] })
    await mags.call('POST', `/mags-jobs/${id}/sync`)
    expect(await run(mags, { script: 'read /a', base_workspace_id: 'base' })).toMatchObject({ output: ['two'] })
  })

  it('refuses what cannot be, and leaves nothing behind', async () => {
    await using mags = await startTestServer()
    await run(mags, { script: 'write /a one', workspace_id: 'deb' })
    await run(mags, { script: 'write /a one', workspace_id: 'alp', image: 'alpine', disk_gb: 4 })
    const never = await mags.submit({ script: 'wait', workspace_id: 'never' })
    const images = 'was made on image alpine, and this job asks for debian-12; ask for image alpine, or use another workspace'
    const both = 'alpine (sha256:a3); both must be of the same version, so start a new workspace from the base'
    const cases: [Record<string, unknown>, number, string][] = [
      [{ base_workspace_id: 'nope' }, 404, "base_workspace_id: no workspace 'nope'; 'mags workspace list' shows those there are"],
      [{ base_workspace_id: 'never' }, 404, "base_workspace_id: workspace 'never' was never saved; it can be a base once a job on it has ended or was synced"],
      [{ workspace_id: 'alp', image: 'debian-12' }, 400, `image: workspace 'alp' ${images}`],
      [{ base_workspace_id: 'alp', rootfs_type: 'debian-12' }, 400, `image: workspace 'alp' ${images}`],
      [{ workspace_id: 'deb', base_workspace_id: 'alp', image: 'debian-12' }, 400, `image: workspace 'alp' ${images}`],
      [
        { workspace_id: 'deb', base_workspace_id: 'alp' },
        400,
        `image: workspace 'deb' was made on image debian-12 (sha256:d12), and the base 'alp' on ${both}`,
      ],
      [{ workspace_id: 'new', base_workspace_id: 'alp', image: 'alpine', disk_gb: 3 }, 400, "disk_gb: workspace 'alp' has 4 GB, and a disk can only grow"],
      [{ workspace_id: 'a/b' }, 400, 'workspace_id: must be 1 to 63 of A-Z a-z 0-9 . _ -'],
    ]
    for (const [body, status, error] of cases)
      expect(await mags.call('POST', '/mags-jobs', { script: 'echo', ...body }), error).toMatchObject({ status, body: { error } })
    expect((await mags.call('GET', '/mags-workspaces')).body).toMatchObject({ total: 3 })
    expect((await mags.call('GET', '/mags-jobs')).body).toMatchObject({ total: 3 })
    await mags.call('POST', `/mags-jobs/${never}/stop`)
  })

  it('goes on with the version of the image that a workspace was made on', async () => {
    const [first, second] = ['a', 'b'].map((digit) => `sha256:${digit.repeat(64)}`) as [string, string]
    const imageDigests = { 'debian-12': first, alpine: 'sha256:a3' }
    await using mags = await startTestServer({ capabilities: { imageDigests } })
    await run(mags, { script: 'write /a 1', workspace_id: 'w' })
    imageDigests['debian-12'] = second
    for (const body of [{ workspace_id: 'w' }, { base_workspace_id: 'w' }, { workspace_id: 'fork', base_workspace_id: 'w' }, { workspace_id: 'fork' }, {}])
      await run(mags, { script: 'echo', ...body })
    await run(mags, { script: 'write /a 2', workspace_id: 'new' })
    expect(mags.host.acquired.map(({ imageDigest }) => imageDigest)).toEqual([first, first, first, first, first, undefined, second])
    expect((await mags.call('POST', '/mags-jobs', { script: 'echo', workspace_id: 'new', base_workspace_id: 'w' })).body.error).toMatch(
      /was made on image debian-12 \(sha256:b{12}\), and the base 'w' on debian-12 \(sha256:a{12}\)/,
    )
  })

  it('takes the image of the workspace when none is asked for', async () => {
    await using mags = await startTestServer()
    await run(mags, { script: 'write /a one', workspace_id: 'alp', image: 'alpine' })
    expect(await run(mags, { script: 'read /a', workspace_id: 'alp' })).toMatchObject({ output: ['one'], image: 'alpine' })
    expect(await run(mags, { script: 'read /a', base_workspace_id: 'alp' })).toMatchObject({ output: ['one'], image: 'alpine' })
    expect(mags.host.acquired.map(({ image }) => image)).toEqual(['alpine', 'alpine', 'alpine'])
  })

  it('grows the disk with the job, and takes the size of what there is', async () => {
    await using mags = await startTestServer()
    await run(mags, { script: 'echo', workspace_id: 'w' })
    await run(mags, { script: 'write /a 1', workspace_id: 'w', disk_gb: 7 })
    expect((await run(mags, { script: 'echo', workspace_id: 'w' })).disk_gb).toBe(7)
    expect((await run(mags, { script: 'echo', base_workspace_id: 'w' })).disk_gb).toBe(7)
    expect(await mags.call('POST', '/mags-jobs', { script: 'echo', workspace_id: 'w', disk_gb: 6 })).toMatchObject({ status: 400 })
    expect(mags.host.acquired.map(({ diskGb }) => diskGb)).toEqual([2, 7, 7, 7])
  })

  it('gives the host storage and fence, and asks for nothing more than that', async () => {
    await using mags = await startTestServer()
    await run(mags, { script: 'write /a 1', workspace_id: 'w' })
    await run(mags, { script: 'echo', workspace_id: 'x', base_workspace_id: 'w' })
    const [first, second] = mags.host.acquired
    expect(first).toMatchObject({ workspace: { storageId: expect.stringMatching(/^[0-9a-f]{32}$/), fence: 1 } })
    expect(first).not.toHaveProperty('base')
    expect(second).toMatchObject({ base: { storageId: first?.workspace?.storageId }, workspace: { fence: 1 } })
  })

  it('says what the host does before it can start, at most once a second', async () => {
    await using mags = await startTestServer({
      beforeAcquire: (_spec, _abort, onProgress) => {
        for (const words of ['restoring w: 10 %', 'restoring w: 20 %']) onProgress(words)
      },
    })
    const { request_id: id } = await run(mags, { script: 'echo', workspace_id: 'w' })
    const { logs } = await mags.rows(id, '?source=system')
    expect(logs.map(({ message }) => message)).toEqual(['restoring w: 10 %'])
  })
})

describe('a workspace in use', () => {
  it('is refused in the fixed words, as 500 under v1 and 409 under v2', async () => {
    await using mags = await startTestServer()
    const id = await running(mags, { script: 'wait', workspace_id: 'w' })
    const error = `workspace 'w' is already in use by job ${id} (status: running); use 'mags exec w <command>' to run commands on it, or 'mags ssh w' to connect interactively`
    const body = { error, code: 'workspace_in_use', details: { workspace_id: 'w', request_id: id, status: 'running' } }
    expect(await mags.call('POST', '/mags-jobs', { script: 'echo', workspace_id: 'w' })).toMatchObject({ status: 500, body })
    const v2 = await mags.server.app.inject({
      method: 'POST',
      url: '/api/v2/mags-jobs',
      headers: { authorization: `Bearer ${mags.token}` },
      payload: { script: 'echo', workspace_id: 'w' },
    })
    expect(v2.statusCode).toBe(409)
    expect(v2.json()).toEqual(body)
    expect(await workspace(mags, 'w')).toMatchObject({ in_use_by: id })
    expect((await mags.status('w')).request_id).toBe(id)
    expect((await mags.call('GET', '/mags-jobs?workspace_id=w')).body).toMatchObject({ total: 1, jobs: [{ request_id: id, workspace_id: 'w' }] })
    await mags.call('POST', '/mags-jobs/w/stop')
    expect(await workspace(mags, 'w')).toMatchObject({ in_use_by: null })
    expect(await run(mags, { script: 'echo', workspace_id: 'w' })).toMatchObject({ status: 'completed' })
  })

  it('goes to one of many that submit at once, which all of the others are told', async () => {
    await using mags = await startTestServer()
    const answers = await Promise.all(Array.from({ length: 20 }, () => mags.call('POST', '/mags-jobs', { script: 'wait', workspace_id: 'w' })))
    const [winner, ...none] = answers.filter(({ status }) => status === 202)
    expect(none).toEqual([])
    for (const { status, body } of answers) {
      if (status === 202) continue
      expect(status).toBe(500)
      expect(body).toMatchObject({ code: 'workspace_in_use', details: { request_id: winner?.body.request_id } })
    }
    expect((await mags.call('GET', '/mags-jobs')).body.total).toBe(1)
  })

  it('is held from the submit on, also by a job that waits', async () => {
    await using mags = await startTestServer({ held: true })
    const id = await mags.submit({ script: 'echo', workspace_id: 'w' })
    expect((await mags.call('POST', '/mags-jobs', { script: 'echo', workspace_id: 'w' })).body.error).toContain(`job ${id} (status: pending)`)
    await mags.call('POST', `/mags-jobs/${id}/stop`)
    await mags.submit({ script: 'echo', workspace_id: 'w' })
  })

  it('gives the first answer back to a repeated Idempotency-Key, not a conflict', async () => {
    await using mags = await startTestServer({ held: true })
    const body = { script: 'echo', workspace_id: 'w' }
    const headers = { 'idempotency-key': 'k' }
    const answers = await Promise.all(Array.from({ length: 5 }, () => mags.call('POST', '/mags-jobs', body, headers)))
    expect(new Set(answers.map((answer) => answer.body.request_id)).size).toBe(1)
    const other = { 'idempotency-key': 'other' }
    expect(await mags.call('POST', '/mags-jobs', body, other)).toMatchObject({ status: 500 })
    await mags.call('POST', '/mags-jobs/w/stop')
    // What was refused has not used up its key.
    expect(await mags.call('POST', '/mags-jobs', body, other)).toMatchObject({ status: 202 })
  })

  it('waits for the sandbox of the job before to be gone', async () => {
    await using mags = await startTestServer()
    const first = await running(mags, { script: 'write /a 1\nwait', workspace_id: 'w' })
    const [sandbox] = [...mags.host.sandboxes.values()]
    if (!sandbox) throw new Error('no sandbox')
    const destroy = sandbox.destroy.bind(sandbox)
    const gate = Promise.withResolvers<void>()
    sandbox.destroy = () => gate.promise.then(destroy)
    sandbox.end({ kind: 'exited', exitCode: 0 })
    expect(await mags.ended(first)).toMatchObject({ status: 'completed', workspace_version: 1 })
    const second = await mags.submit({ script: 'read /a', workspace_id: 'w' })
    const other = await run(mags, { script: 'echo', workspace_id: 'other' })
    expect(other.status).toBe('completed')
    expect(mags.host.acquired).toHaveLength(2)
    gate.resolve()
    expect(await mags.ended(second)).toMatchObject({ status: 'completed' })
  })
})

describe('workspaces over HTTP', () => {
  it('lists pages, newest first, and knows what is not there', async () => {
    await using mags = await startTestServer()
    for (const id of ['a', 'b', 'c']) await run(mags, { script: 'echo', workspace_id: id })
    const { body } = await mags.call('GET', '/mags-workspaces?page=2&page_size=2')
    expect(body).toMatchObject({ total: 3, page: 2, page_size: 2, workspaces: [{ workspace_id: 'a' }] })
    expect(await mags.call('GET', '/mags-workspaces/nope')).toMatchObject({
      status: 404,
      body: { code: 'not_found', error: "no workspace 'nope'; 'mags workspace list' shows those there are" },
    })
    expect(await mags.call('GET', '/mags-workspaces?limit=2')).toMatchObject({ status: 400 })
  })

  it('forks without a copy, also an earlier version', async () => {
    await using mags = await startTestServer()
    await run(mags, { script: 'write /a one', workspace_id: 'w', disk_gb: 5 })
    await run(mags, { script: 'write /a two', workspace_id: 'w' })
    expect(await mags.call('POST', '/mags-workspaces/w/fork', { workspace_id: 'x' })).toMatchObject({
      status: 201,
      body: { workspace_id: 'x', version: 1, base_workspace_id: 'w', disk_gb: 5, size_bytes: 3, image: 'debian-12', in_use_by: null },
    })
    await mags.call('POST', '/mags-workspaces/w/fork', { workspace_id: 'old', version: 1 })
    expect(await run(mags, { script: 'read /a', workspace_id: 'x' })).toMatchObject({ output: ['two'], status: 'completed' })
    expect(await run(mags, { script: 'read /a', workspace_id: 'old' })).toMatchObject({ output: ['one'] })
    expect(await mags.call('POST', '/mags-workspaces/w/fork', { workspace_id: 'x' })).toMatchObject({
      status: 409,
      body: { code: 'already_exists', error: "workspace 'x' already exists; choose another name, or delete it first" },
    })
    expect(await mags.call('POST', '/mags-workspaces/w/fork', { workspace_id: 'y', version: 9 })).toMatchObject({
      status: 404,
      body: { error: "workspace 'w' has no version 9; the newest is 2" },
    })
    expect(await mags.call('POST', '/mags-workspaces/w/fork', {})).toMatchObject({ status: 400, body: { error: 'workspace_id: is required' } })
  })

  it('lets one of many forks to one name win, and keeps nothing of the others', async () => {
    await using mags = await startTestServer()
    await run(mags, { script: 'write /a one', workspace_id: 'w' })
    const answers = await Promise.all(Array.from({ length: 5 }, () => mags.call('POST', '/mags-workspaces/w/fork', { workspace_id: 'x' })))
    expect(answers.map(({ status }) => status).sort()).toEqual([201, 409, 409, 409, 409])
    expect((await mags.call('GET', '/mags-workspaces')).body.total).toBe(2)
    expect(await run(mags, { script: 'read /a', workspace_id: 'x' })).toMatchObject({ output: ['one'] })
  })

  it('makes one fork of requests with the same Idempotency-Key', async () => {
    await using mags = await startTestServer()
    await run(mags, { script: 'write /a one', workspace_id: 'w' })
    const fork = (workspaceId: string) => mags.call('POST', '/mags-workspaces/w/fork', { workspace_id: workspaceId }, { 'idempotency-key': 'k' })
    const answers = await Promise.all(Array.from({ length: 5 }, () => fork('x')))
    for (const answer of [...answers, await fork('x')]) expect(answer).toMatchObject({ status: 201, body: answers[0]?.body ?? {} })
    expect(await fork('y')).toMatchObject({ status: 409, body: { code: 'idempotency_conflict' } })
    expect(await mags.call('POST', '/mags-jobs', { script: 'echo' }, { 'idempotency-key': 'k' })).toMatchObject({ status: 409 })
    expect((await mags.call('GET', '/mags-workspaces')).body.total).toBe(2)
  })

  it('leaves nothing behind when a fork fails', async () => {
    await using mags = await startTestServer()
    await run(mags, { script: 'write /a one', workspace_id: 'w' })
    mags.host.workspaces.faults.push(unavailable())
    expect(await mags.call('POST', '/mags-workspaces/w/fork', { workspace_id: 'x' })).toMatchObject({ status: 503, body: { code: 'object_store_unavailable' } })
    expect((await mags.call('GET', '/mags-workspaces')).body.total).toBe(1)
    expect(mags.host.workspaces.removed).toHaveLength(1)
    expect(await mags.call('POST', '/mags-workspaces/w/fork', { workspace_id: 'x' })).toMatchObject({ status: 201 })
  })

  it('shows versions, what is different between them, and goes back', async () => {
    await using mags = await startTestServer()
    await run(mags, { script: 'write /a one\nwrite /b two', workspace_id: 'w' })
    // Before the first version there is the image.
    expect(await mags.call('GET', '/mags-workspaces/w/diff')).toMatchObject({
      status: 200,
      body: {
        from: 0,
        to: 1,
        differences: [
          { path: '/a', change: 'added' },
          { path: '/b', change: 'added' },
        ],
      },
    })
    await run(mags, { script: 'write /a 1\nrm /b\nwrite /c x', workspace_id: 'w' })
    expect((await mags.call('GET', '/mags-workspaces/w/versions?page_size=1')).body).toEqual({
      versions: [{ version: 2, created_at: expect.any(String), reason: 'sync', size_bytes: 2, entry_count: 2, uploaded_bytes: 2, image: 'debian-12' }],
      total: 2,
      page: 1,
      page_size: 1,
    })
    const one = { kind: 'file', size_bytes: 3, mode: 0o644 }
    expect((await mags.call('GET', '/mags-workspaces/w/diff')).body).toEqual({
      workspace_id: 'w',
      from: 1,
      to: 2,
      differences: [
        { path: '/a', change: 'changed', before: one, after: { ...one, size_bytes: 1 } },
        { path: '/b', change: 'removed', before: one, after: null },
        { path: '/c', change: 'added', before: null, after: { ...one, size_bytes: 1 } },
      ],
      truncated: false,
    })
    expect((await mags.call('GET', '/mags-workspaces/w/diff?from=2&to=1&content=true&limit=1')).body).toMatchObject({
      from: 2,
      to: 1,
      differences: [{ path: '/a', content: '-1\n+one\n' }],
      truncated: true,
    })
    expect(await mags.call('GET', '/mags-workspaces/w/diff?to=7')).toMatchObject({
      status: 404,
      body: { error: "workspace 'w' has no version 7; the newest is 2" },
    })
    expect(await mags.call('POST', '/mags-workspaces/w/restore', { version: 1 })).toMatchObject({
      status: 200,
      body: { success: true, workspace_id: 'w', version: 3 },
    })
    expect(await workspace(mags, 'w')).toMatchObject({ version: 3, size_bytes: 6 })
    expect(await run(mags, { script: 'read /a\nread /b\nread /c', workspace_id: 'w' })).toMatchObject({ output: ['one', 'two', 'nothing'] })
    expect(await mags.call('POST', '/mags-workspaces/w/restore', { version: 9 })).toMatchObject({ status: 404 })
    expect(await mags.call('POST', '/mags-workspaces/w/restore', {})).toMatchObject({ status: 400 })
  })

  it('says that one was never saved', async () => {
    await using mags = await startTestServer({ held: true })
    await mags.submit({ script: 'echo', workspace_id: 'w' })
    await mags.call('POST', '/mags-jobs/w/stop')
    expect(await mags.call('GET', '/mags-workspaces/w/diff')).toMatchObject({ status: 404, body: { error: expect.stringContaining('was never saved') } })
    expect(await mags.call('GET', '/mags-workspaces/w/versions')).toMatchObject({ status: 200, body: { total: 0 } })
    expect(await mags.call('POST', '/mags-workspaces/w/restore', { version: 1 })).toMatchObject({ status: 404 })
  })

  it('does not restore or delete what a job has', async () => {
    await using mags = await startTestServer()
    await run(mags, { script: 'write /a one', workspace_id: 'w' })
    const id = await running(mags, { script: 'wait', workspace_id: 'w' })
    const words = `workspace 'w' is already in use by job ${id} (status: running); stop it with 'mags stop w' before you`
    expect(await mags.call('DELETE', '/mags-workspaces/w')).toMatchObject({
      status: 500,
      body: { code: 'workspace_in_use', error: `${words} delete its workspace` },
    })
    expect(await mags.call('POST', '/mags-workspaces/w/restore', { version: 1 })).toMatchObject({
      body: { code: 'workspace_in_use', error: `${words} restore an earlier version` },
    })
    await mags.call('POST', '/mags-jobs/w/stop')
    const worker = await running(mags, { script: 'wait', base_workspace_id: 'w' })
    expect(await mags.call('DELETE', '/mags-workspaces/w')).toMatchObject({
      body: { code: 'workspace_in_use', error: expect.stringContaining(`${worker} (status: running); that job starts from it`) },
    })
    await mags.call('POST', `/mags-jobs/${worker}/stop`)
    expect(await mags.call('DELETE', '/mags-workspaces/w')).toMatchObject({ status: 200, body: { success: true, message: 'Workspace deleted' } })
  })

  it('deletes a workspace with its data, and its name begins anew', async () => {
    await using mags = await startTestServer()
    await run(mags, { script: 'write /a one', workspace_id: 'w' })
    const storageId = mags.host.acquired[0]?.workspace?.storageId
    expect(await mags.call('DELETE', '/mags-workspaces/w')).toMatchObject({ status: 200 })
    expect(mags.host.workspaces.removed).toEqual([storageId])
    expect(await mags.call('GET', '/mags-workspaces/w')).toMatchObject({ status: 404 })
    expect(await mags.call('DELETE', '/mags-workspaces/w')).toMatchObject({ status: 404 })
    expect(await run(mags, { script: 'read /a', workspace_id: 'w' })).toMatchObject({ output: ['nothing'] })
    expect(mags.host.acquired[1]?.workspace?.storageId).not.toBe(storageId)
  })

  it('takes the data away later when the object store does not answer', async () => {
    await using mags = await startTestServer()
    await run(mags, { script: 'write /a one', workspace_id: 'w' })
    mags.host.workspaces.fault = unavailable()
    const { status, body } = await mags.call('DELETE', '/mags-workspaces/w')
    expect(status).toBe(200)
    expect(body.message).toContain('taken away later')
    expect((await mags.call('GET', '/mags-workspaces')).body.total).toBe(0)
    mags.host.workspaces.fault = undefined
    await mags.server.close()
    await using second = await startTestServer({ host: mags.host, deps: mags.deps })
    await until(() => second.host.workspaces.removed).toEqual([mags.host.acquired[0]?.workspace?.storageId])
  })

  it('grows a disk only, up to what the server has', async () => {
    await using mags = await startTestServer()
    await run(mags, { script: 'echo', workspace_id: 'w' })
    expect(await mags.call('PATCH', '/mags-workspaces/w', { disk_gb: 9 })).toMatchObject({ status: 200, body: { disk_gb: 9 } })
    expect(await mags.call('PATCH', '/mags-workspaces/w', { disk_gb: 8 })).toMatchObject({
      status: 400,
      body: { error: "disk_gb: workspace 'w' has 9 GB, and a disk can only grow" },
    })
    expect(await mags.call('PATCH', '/mags-workspaces/w', { disk_gb: 21 })).toMatchObject({
      status: 400,
      body: { error: 'disk_gb: at most 20 on this server' },
    })
    expect(await mags.call('PATCH', '/mags-workspaces/w', { size: 21 })).toMatchObject({ status: 400 })
    expect((await run(mags, { script: 'echo', workspace_id: 'w' })).disk_gb).toBe(9)
  })

  it('is in the OpenAPI document and the metrics', async () => {
    await using mags = await startTestServer()
    await run(mags, { script: 'write /a one', workspace_id: 'w' })
    const document = (await mags.server.app.inject('/openapi.json')).json<{ paths: Record<string, object> }>()
    for (const path of ['', '/{id}', '/{id}/fork', '/{id}/versions', '/{id}/restore', '/{id}/diff'])
      expect(document.paths).toHaveProperty([`/api/v1/mags-workspaces${path}`])
    expect(document.paths).toHaveProperty(['/api/v2/mags-jobs/{id}/sync'])
    const metrics = (await mags.server.app.inject('/metrics')).body
    expect(metrics).toContain('mags_workspace_saves_total{result="saved"} 1')
    expect(metrics).toContain('mags_workspace_uploaded_bytes_total 3')
    expect(metrics).toContain('mags_workspace_save_seconds_count 1')
  })
})
