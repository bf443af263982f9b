import { randomUUID } from 'node:crypto'
import { TemplateStore } from '../../packages/server/src/templates/store.ts'
import { startDaemon } from '../../tests/kit/daemon.ts'
import { BenchClient } from '../kit/client.ts'
import { type Row, sample } from '../kit/statistics.ts'
import { openDatabaseOf } from './daemon-database.ts'

const count = 10_000
const pageSize = 20

interface Page {
  readonly templates: readonly unknown[]
  readonly total: number
}

/** Pages of a long list. */
export async function measureTemplates(runs: number): Promise<Row[]> {
  await using daemon = await startDaemon({ MAGS_ISOLATION: 'container', MAGS_POOL_MIN: '0' })
  await using database = await openDatabaseOf(daemon)
  const store = new TemplateStore(database)
  const createdAt = new Date().toISOString()
  await database.transaction().execute(async (transaction) => {
    for (let number = 0; number < count; number++) {
      const id = randomUUID()
      const latest = { id: randomUUID(), templateId: id, revision: 1, script: `echo ${number}\n`.repeat(40), environment: { NUMBER: String(number) } }
      const template = { id, accountId: 'local', userId: 'bench', name: `template-${number}`, description: 'one of many', vcpus: 1, memoryMb: 512 }
      await store.insert(transaction, { ...template, latest: { ...latest, comment: null, createdAt, createdBy: 'bench' }, createdAt, updatedAt: createdAt })
    }
  })
  const client = new BenchClient(daemon)
  const page = (number: number) => async () => {
    const begin = performance.now()
    const { templates, total } = await client.get<Page>(`/api/v1/job-templates?page=${number}&page_size=${pageSize}`)
    if (templates.length !== pageSize || total !== count) throw new Error(`${templates.length} of ${total}`)
    return performance.now() - begin
  }
  try {
    const last = count / pageSize
    await page(1)()
    return [await sample('page 1', runs, page(1)), await sample(`page ${last}, the last`, runs, page(last))]
  } finally {
    client.close()
  }
}
