import type { ImageTaskStartedWire, Mags } from '@mags/sdk'
import { Command } from 'commander'
import { packFolder } from '../archive/pack-folder.ts'
import type { Cli, CommandDefinition } from '../cli.ts'
import { usageError } from '../exit/cli-error.ts'
import { describeImage, imageTable, shortDigest } from '../images/describe-image.ts'
import { readDockerIgnore } from '../images/docker-ignore.ts'
import { followTask } from '../images/follow-task.ts'
import { type BuildSource, defaultName, findBuildSource, findImportSource, type ImportSource } from '../images/image-source.ts'
import { openSession } from '../server/session.ts'
import { confirm } from '../terminal/confirm.ts'
import { formatBytes } from '../terminal/format-bytes.ts'
import { Progress } from '../terminal/progress.ts'
import { environmentEntry } from './flag-values.ts'
import { jsonToo, type PageFlags, paged, sayMore } from './paging.ts'

type Done = Parameters<CommandDefinition>[1]

interface BuildFlags {
  readonly name?: string
  readonly file?: string
  readonly buildArg?: Readonly<Record<string, string>>
  /** False with --no-cache. */
  readonly cache: boolean
}

export const imageCommand: CommandDefinition = (cli, done) => {
  const command = new Command('image').summary('list, build, import and delete images').description('Images: what sandboxes begin with.')
  for (const define of [list, inspect, build, importImage, makeDefault, remove, prune]) command.addCommand(define(cli, done))
  return command
}

function list(cli: Cli, done: Done): Command {
  return paged(new Command('list').alias('ls').summary('list images'), 'images').action(async ({ page, pageSize }: PageFlags) => {
    const { first: answer } = await openSession(cli, (mags) => mags.images.list({ page, pageSize, signal: cli.interrupts.requested }))
    await show(cli, answer, () => imageTable(answer.images))
    await sayMore(cli, answer, answer.images.length)
    done(0)
  })
}

function inspect(cli: Cli, done: Done): Command {
  return jsonToo(
    new Command('inspect').summary('show all versions of an image, where they come from and who uses them').argument('<name>', 'the image'),
  ).action(async (name: string) => {
    const { first: answer } = await openSession(cli, (mags) => mags.images.get(name, { signal: cli.interrupts.requested }))
    await show(cli, answer, () => describeImage(answer))
    done(0)
  })
}

function makeDefault(cli: Cli, done: Done): Command {
  return jsonToo(new Command('default').summary('what jobs get that name no image').argument('<name>', 'the image')).action(async (name: string) => {
    const { first: answer } = await openSession(cli, (mags) => mags.images.setDefault(name, { signal: cli.interrupts.requested }))
    await show(cli, answer, () => `${answer.name} is the default\n`)
    done(0)
  })
}

function remove(cli: Cli, done: Done): Command {
  return jsonToo(new Command('delete').alias('rm').summary('delete an image'))
    .description('Deletes an image, or one version of it. Refused while workspaces, jobs or microVMs need it, and for the default.')
    .argument('<name>', 'the image')
    .option('--digest <digest>', 'only this version (sha256:…)')
    .option('-y, --yes', 'do not ask')
    .action(async (name: string, { digest, yes }: { digest?: string; yes?: boolean }) => {
      const what = digest === undefined ? `Image '${name}' with all its versions` : `Version ${shortDigest(digest)} of image '${name}'`
      await confirm(cli, `${what} will be deleted, without a way back.`, { yes: yes === true })
      const { first: answer } = await openSession(cli, (mags) => mags.images.remove(name, { digest, signal: cli.interrupts.requested }))
      await show(cli, answer, () => `${answer.message}\n`)
      done(0)
    })
}

function prune(cli: Cli, done: Done): Command {
  return jsonToo(new Command('prune').summary('forget what builds kept of their steps'))
    .description('Empties the cache of builds from Dockerfiles. Images stay as they are; the next build runs every step.')
    .action(async () => {
      const { first: answer } = await openSession(cli, (mags) => mags.images.pruneCache({ signal: cli.interrupts.requested }))
      await show(cli, answer, () => `${answer.message}: ${formatBytes(answer.freed_bytes)}\n`)
      done(0)
    })
}

function build(cli: Cli, done: Done): Command {
  return jsonToo(new Command('build').summary('build an image from a recipe or a Dockerfile'))
    .description(
      "Builds an image: 'build ubuntu-22.04' by a recipe of the server, 'build .' from a folder with a Dockerfile, 'build path/to/Dockerfile' from that. Instructions run in sandboxes; .dockerignore keeps files from being sent.",
    )
    .argument('<what>', 'recipe, Dockerfile, or folder with one; a path that is there is taken for one')
    .option('-n, --name <name>', 'what it is called; default the recipe, or the folder')
    .option('-f, --file <path>', 'another Dockerfile of the folder; a path as seen from here')
    .option('--build-arg <NAME=VALUE>', 'value of an ARG, repeatable; NAME alone passes yours on', environmentEntry(cli.env))
    .option('--no-cache', 'run every step of the Dockerfile, also those that were run before')
    .action(async (what: string, flags: BuildFlags) => {
      const source = findBuildSource(what, flags.file)
      if (source.kind === 'recipe' && flags.buildArg) throw usageError('--build-arg goes with a Dockerfile.')
      if (source.kind === 'recipe' && !flags.cache) throw usageError('--no-cache goes with a Dockerfile.')
      const name = defaultName(source.kind === 'recipe' ? source.recipe : source.folder === '.' ? process.cwd() : source.folder, flags.name)
      await make(cli, done, (mags, progress) => startBuild(cli, mags, { source, name, buildArgs: flags.buildArg, noCache: !flags.cache }, progress))
    })
}

function importImage(cli: Cli, done: Done): Command {
  return jsonToo(new Command('import').summary('make an image of one that is there already'))
    .description(
      "Imports an image: a tar archive (an OCI layout, what 'docker save' writes, or a root file system; plain or compressed), a folder with an OCI layout, or a reference to a registry such as docker.io/library/alpine:3.20.",
    )
    .argument('<what>', 'archive, folder, or reference; a path that is there is taken for one')
    .option('-n, --name <name>', 'what it is called; default the last part of the reference or file')
    .action(async (what: string, { name }: { name?: string }) => {
      const source = findImportSource(what)
      const called = defaultName(what, name)
      await make(cli, done, (mags, progress) => startImport(cli, mags, source, called, progress))
    })
}

/** Starts a task and shows it to its end. */
async function make(cli: Cli, done: Done, start: (mags: Mags, progress: Progress) => Promise<ImageTaskStartedWire>): Promise<void> {
  // What is sent can be sent only once, so the server has to be there before.
  const { mags } = await openSession(cli, (client) => client.health({ signal: cli.interrupts.requested }))
  using progress = new Progress(cli.output)
  const { task_id: id } = await start(mags, progress)
  progress[Symbol.dispose]()
  const task = await followTask(cli, mags, id)
  await show(cli, task, () => `${task.name} ${task.digest ?? ''}\n`)
  done(0)
}

async function startBuild(
  cli: Cli,
  mags: Mags,
  { source, name, buildArgs, noCache }: { source: BuildSource; name: string; buildArgs: Readonly<Record<string, string>> | undefined; noCache: boolean },
  progress: Progress,
): Promise<ImageTaskStartedWire> {
  const signal = cli.interrupts.requested
  if (source.kind === 'recipe') return await mags.images.build({ name, recipe: source.recipe, signal })
  const ignore = await readDockerIgnore(source.folder, source.dockerfile)
  const skipped: string[] = []
  const context = counted(packFolder(source.folder, { ignore, onSkip: (path) => skipped.push(path) }), (bytes) =>
    progress.update(() => `sending: ${formatBytes(bytes)}`),
  )
  const started = await mags.images.build({ name, context, dockerfile: source.dockerfile, buildArgs, noCache, signal })
  if (skipped.length > 0)
    await cli.output.note(`not sent, for they are neither files, folders nor links: ${skipped.slice(0, 5).join(', ')}${skipped.length > 5 ? ' …' : ''}`)
  return started
}

async function startImport(cli: Cli, mags: Mags, source: ImportSource, name: string, progress: Progress): Promise<ImageTaskStartedWire> {
  const signal = cli.interrupts.requested
  const onBytes = (bytes: number) => progress.update(() => `sending: ${formatBytes(bytes)}`)
  if (source.kind === 'reference' && !source.reference.includes('/'))
    await cli.output.note(`there is no ${source.reference} on this machine: it is taken for a reference to a registry`)
  if (source.kind === 'reference') return await mags.images.import({ name, reference: source.reference, signal })
  if (source.kind === 'file') return await mags.images.import({ name, file: source.path, onProgress: onBytes, signal })
  return await mags.images.import({ name, content: counted(packFolder(source.folder), onBytes), fileName: source.folder, signal })
}

async function* counted(parts: AsyncIterable<Uint8Array>, onBytes: (total: number) => void): AsyncGenerator<Uint8Array> {
  let total = 0
  for await (const part of parts) {
    yield part
    total += part.length
    onBytes(total)
  }
}

async function show(cli: Cli, answer: unknown, words: () => string): Promise<void> {
  await (cli.output.json ? cli.output.data(answer) : cli.output.out(words()))
}
