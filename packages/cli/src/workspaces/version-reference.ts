import { usageError } from '../exit/cli-error.ts'

/** A workspace, and perhaps one of its versions, as `proj` or `proj@3` on the command line. */
export interface VersionReference {
  readonly name: string
  readonly version: number | undefined
}

/** Throws a usage error that names the form. */
export function parseReference(text: string): VersionReference {
  const [, name, version] = /^([A-Za-z0-9._-]{1,63})(?:@([1-9]\d{0,8}))?$/.exec(text) ?? []
  if (name === undefined)
    throw usageError(`${JSON.stringify(text)} must be NAME or NAME@VERSION, such as proj or proj@3; names are 1 to 63 of A-Z a-z 0-9 . _ -.`)
  return { name, version: version === undefined ? undefined : Number(version) }
}

/** For where a version makes no sense. */
export function parseName(text: string): string {
  const { name, version } = parseReference(text)
  if (version !== undefined) throw usageError(`${JSON.stringify(text)} must be the NAME of a workspace, without a version: ${name}.`)
  return name
}

/** For where it must be one version. */
export function parseVersion(text: string): { readonly name: string; readonly version: number } {
  const { name, version } = parseReference(text)
  if (version === undefined) throw usageError(`${JSON.stringify(text)} must be NAME@VERSION, such as ${name}@3. 'mags workspace versions ${name}' lists them.`)
  return { name, version }
}

/** What `diff` compares: two versions of one workspace; what is left out is the newest, and the version before. */
export function parseDiff(from: string, to: string | undefined): { readonly name: string; readonly from: number | undefined; readonly to: number | undefined } {
  const first = parseReference(from)
  if (to === undefined) return { name: first.name, from: first.version, to: undefined }
  const second = parseReference(to)
  if (second.name !== first.name) throw usageError(`Both must be versions of one workspace, such as 'mags workspace diff ${first.name}@3 ${first.name}@5'.`)
  if (first.version === undefined) throw usageError(`${JSON.stringify(from)} must be NAME@VERSION where two are compared, such as ${first.name}@3.`)
  return { name: first.name, from: first.version, to: second.version }
}
