import { expect, it } from 'vitest'
import { resting, startSleepServer } from '../testing/sleep-server.ts'

it('a job is forked no further than its account may have jobs awake, also by many requests at once', async () => {
  await using mags = await startSleepServer({ deps: { limits: { maxRunningJobsPerAccount: 3 } } })
  const id = await resting(mags, { script: 'echo', name: 'web' })
  const answers = await Promise.all([1, 2, 3, 4].map((number) => mags.call('POST', `/mags-jobs/${id}/fork`, { name: `copy-${number}` })))
  expect(answers.filter(({ status }) => status === 202)).toHaveLength(2)
  for (const { status, body } of answers) if (status !== 202) expect({ status, body }).toMatchObject({ status: 429, body: { code: 'rate_limited' } })
  // Nothing is left of those that were refused.
  expect((await mags.call('GET', '/mags-jobs')).body.total).toBe(3)
})
