import { describe } from 'vitest'

/**
 * A `describe` that runs beside the other lanes of its file, its own tests one after the other. Only for tests that have everything for themselves: daemon, folders, ports. They poll with `vi.waitFor`, because
 * the global `expect.poll` cannot know in which of the running tests it is. Two lanes are enough for two processors.
 */
export function describeLane(name: string, tests: () => void): void {
  describe(name, { concurrent: true }, () => {
    describe('in turn', { concurrent: false }, tests)
  })
}
