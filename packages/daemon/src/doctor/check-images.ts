import { access, readlink, stat } from 'node:fs/promises'
import { delimiter, join } from 'node:path'
import process from 'node:process'
import { ImageCatalogue } from '@mags/host'
import { type Check, failure, ok, warning } from './finding.ts'

/** What imports need besides: program and Debian package. */
const programs = [
  ['skopeo', 'skopeo'],
  ['xz', 'xz-utils'],
  ['bzip2', 'bzip2'],
] as const

/** Whether there are images and the guests' kernel, whole, and what making more of them needs. */
export function checkImages(systemDir: string): Check {
  return {
    part: 'images',
    async run() {
      const catalogue = await ImageCatalogue.open(join(systemDir, 'images'))
      const names = catalogue.names()
      if (names.length === 0) return failure(`none in ${join(systemDir, 'images')}`, './mags setup builds debian-12')
      const versions = catalogue.all()
      const empty = []
      for (const { image } of versions) if ((await stat(image.erofsFile)).size === 0) empty.push(`${image.name} ${image.digest}`)
      if (empty.length > 0) return failure(`the disk of ${empty.join(', ')} is empty`, "remove it with 'mags image delete' and bring it again")
      const found = `${names.join(', ')}${versions.length > names.length ? ` in ${versions.length} versions` : ''}`
      const kernel = join(systemDir, 'kernels', 'current')
      const version = await readlink(kernel).catch(() => undefined)
      if (version === undefined) return failure(`${found}; no kernel for VMs in ${kernel}`, './mags setup unpacks one')
      await access(join(kernel, 'vmlinux'))
      const missing = []
      for (const [program, debianPackage] of programs) if (!(await isOnPath(program))) missing.push(debianPackage)
      if (missing.length > 0)
        return warning(
          `${found}; guest kernel ${version}; not every image can be imported`,
          `./mags setup installs what is missing; by hand: apt-get install ${missing.join(' ')}`,
        )
      return ok(`${found}; guest kernel ${version}`)
    },
  }
}

async function isOnPath(program: string) {
  const found = await Promise.all(
    (process.env.PATH ?? '').split(delimiter).map((dir) =>
      access(join(dir, program)).then(
        () => true,
        () => false,
      ),
    ),
  )
  return found.includes(true)
}
