import { buildRecipe } from '../build-recipe.ts'
import { importLimits } from '../import/import-limits.ts'
import { importWork } from '../import/import-work.ts'

/** `build-recipe-alone <setup/steps/image.sh> <recipe> <work folder>`: a process of its own that builds, for tests that kill it. */
const [script = '', recipe = '', dir = ''] = process.argv.slice(2)
await buildRecipe(
  recipe,
  script,
  importWork(dir, importLimits(1), () => undefined, new AbortController().signal),
)
