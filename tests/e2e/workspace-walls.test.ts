import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { type DaemonPlace, makePlace, startDaemon, type TestDaemon } from '../kit/daemon.ts'
import { leftOf } from '../kit/leaks.ts'
import { canTest, notRoot } from '../kit/require.ts'
import { WorkspaceClient } from '../kit/workspace-client.ts'

const canTestBoth = canTest('MAGS_REQUIRE_CONTAINER', notRoot) && canTest('MAGS_REQUIRE_VM', notRoot)

/** A disk goes from one kind of sandbox to the other as it is where that is possible: what one driver leaves on it must not stop the other. */
describe.runIf(canTestBoth)('a workspace behind one wall, then behind the other', () => {
  let place: DaemonPlace & AsyncDisposable
  let daemon: TestDaemon
  let client: WorkspaceClient

  beforeAll(async () => {
    place = await makePlace()
    daemon = await startDaemon({ MAGS_POOL_MIN: '1' }, place)
    client = new WorkspaceClient(daemon)
  }, 240_000)

  afterAll(async () => {
    await daemon.stop()
    const left = leftOf(daemon)
    await place[Symbol.asyncDispose]()
    expect(left).toEqual([])
  }, 60_000)

  const run = (isolation: 'container' | 'vm', script: string, job: Record<string, unknown>) => client.run(script, { isolation, ...job })

  it('goes on', async () => {
    for (const [round, isolation] of (['container', 'vm', 'container', 'vm'] as const).entries()) {
      const stdout = `${Array.from({ length: round + 1 }, (_, line) => line).join('\n')}\n`
      expect(await run(isolation, `echo ${round} >> lines; cat lines`, { workspace_id: 'w' })).toMatchObject({ status: 'completed', error: null, stdout })
    }
  }, 240_000)

  it('is a base, and is forked', async () => {
    expect(await run('container', 'echo one > file', { workspace_id: 'seed' })).toMatchObject({ status: 'completed' })
    for (const isolation of ['vm', 'container'] as const) {
      expect(await run(isolation, 'cat file', { base_workspace_id: 'seed' })).toMatchObject({ error: null, stdout: 'one\n' })
      expect(await run(isolation, 'cat file', { base_workspace_id: 'seed', workspace_id: `of-${isolation}` })).toMatchObject({ error: null, stdout: 'one\n' })
    }
  }, 240_000)
})
