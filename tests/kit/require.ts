import process from 'node:process'

/**
 * Whether a part that needs this machine's help can be tested here. When it cannot, the reason is printed; with the switch set it is an error instead, so that a run that
 * must be complete cannot pass by skipping.
 *
 * @param variable such as `MAGS_REQUIRE_CONTAINER`
 * @param missing why it cannot be tested, undefined when it can
 */
export function canTest(variable: string, missing: string | undefined): boolean {
  if (missing === undefined) return true
  if (process.env[variable] === '1') throw new Error(`${variable} is set, but ${missing}`)
  process.stderr.write(`skipped: ${missing} (set ${variable}=1 to make this a failure)\n`)
  return false
}

/** Both drivers need root. */
export const notRoot = process.getuid?.() === 0 ? undefined : 'sandboxes can only be made by root'
