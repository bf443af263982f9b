import { defineConfig } from 'vitest/config'

const resolve = { conditions: ['source'] }
const ssr = { resolve: { conditions: ['source', 'node'] } }

/**
 * Unit tests live beside their source, need no root and run side by side. What is in `tests/` runs real sandboxes, servers and programs, looks at what the whole machine
 * holds before and after, and so runs one file after the other.
 */
export default defineConfig({
  test: {
    retry: 0,
    projects: [
      { resolve, ssr, test: { name: 'unit', include: ['packages/*/src/**/*.test.ts'], testTimeout: 30_000, hookTimeout: 60_000 } },
      {
        resolve,
        ssr,
        test: {
          name: 'system',
          include: ['tests/**/*.test.ts'],
          fileParallelism: false,
          sequence: { groupOrder: 1 },
          testTimeout: 60_000,
          hookTimeout: 240_000,
        },
      },
    ],
  },
})
