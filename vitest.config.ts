import { defineConfig } from 'vitest/config'

/** Unit tests live beside their source and need no root; `tests/` holds what runs real sandboxes, servers and programs. */
export default defineConfig({
  resolve: { conditions: ['source'] },
  ssr: { resolve: { conditions: ['source', 'node', 'import', 'default'] } },
  test: {
    include: ['packages/*/src/**/*.test.ts', 'tests/**/*.test.ts'],
    testTimeout: 30_000,
    hookTimeout: 120_000,
    retry: 0,
  },
})
