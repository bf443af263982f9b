import { mkdir, readdir, rename, stat } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { MagsError } from '@mags/protocol'
import { runImageProgram } from './image-program.ts'
import type { ImportWork } from './import/import-work.ts'

/** The recipe's script says with it that something it needs does not answer; a line `unreachable: ADDRESS` names that (EX_TEMPFAIL, sysexits.h). */
const unreachableCode = 75
const nameRule = /^[a-z0-9][a-z0-9._-]{0,62}$/

/**
 * Runs a recipe (`images/<recipe>/build`, by `setup/steps/image.sh`) into a system folder of its own. Resolves with the folder of the version it made. Rejects with MagsError 'not_found' for no such recipe, 'not_available' where there are none,
 * 'image_source_unreachable' naming the address, and 'image_invalid' with its last words.
 */
export async function buildRecipe(recipe: string, script: string | undefined, work: ImportWork): Promise<string> {
  if (script === undefined) throw new MagsError('not_available', 'this server has no recipes; import an archive instead')
  // setup/steps/image.sh
  const installation = dirname(dirname(dirname(script)))
  const known = await recipesOf(installation)
  if (!nameRule.test(recipe) || !known.includes(recipe))
    throw new MagsError('not_found', `recipe: there is no ${JSON.stringify(recipe.slice(0, 100))}; there is ${known.join(', ') || 'none'}`)
  const systemDir = join(work.dir, 'system')
  await mkdir(systemDir, { mode: 0o755 })
  work.progress.step(`building ${recipe}`)
  const env = { ...(process.env as Record<string, string>), MAGS_ROOT: installation, MAGS_SYSTEM_DIR: systemDir, MAGS_REFRESH: '1' }
  const { code, words } = await runImageProgram(work, { command: script, args: [recipe], env, tellsProgress: true })
  if (code !== 0) throw refusal(recipe, code, words)
  const versions = join(systemDir, 'images', recipe)
  const made = (await readdir(versions)).find((name) => /^[0-9a-f]{64}$/.test(name))
  if (made === undefined) throw new Error(`the recipe ${recipe} ended well, but made no image`)
  const dir = join(work.dir, 'image')
  await rename(join(versions, made), dir)
  return dir
}

async function recipesOf(installation: string): Promise<string[]> {
  const names = (await readdir(join(installation, 'images')).catch(() => [])).sort()
  const found = await Promise.all(names.map(async (name) => ((await stat(join(installation, 'images', name, 'build')).catch(() => undefined)) ? [name] : [])))
  return found.flat()
}

function refusal(recipe: string, code: number, words: string): MagsError {
  const lines = words.split('\n')
  const address = lines
    .findLast((line) => line.startsWith('unreachable: '))
    ?.slice('unreachable: '.length)
    .trim()
  const last = lines.slice(-8).join('\n')
  if (code !== unreachableCode && address === undefined) return new MagsError('image_invalid', `the recipe ${recipe} failed (exit ${code}): ${last}`)
  return new MagsError(
    'image_source_unreachable',
    `${recipe} is made from ${address ?? 'a mirror'}, which cannot be reached from this server; build it where it can be, and bring the file: 'mags image import image.tar --name ${recipe}'. Its last words: ${last}`,
    { details: { address: address ?? null } },
  )
}
