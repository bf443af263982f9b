import { MagsError } from '@mags/protocol'
import { copyInstruction } from './copy-instruction.ts'
import type { InstructionContext, InstructionKind, Step } from './instruction.ts'
import { faultAt, type Instruction } from './parse-dockerfile.ts'
import { runCommand } from './run-command.ts'
import type { Stage } from './stage.ts'
import { expandText, readArg, readEnv } from './variables.ts'

/** Throws MagsError 'image_invalid' naming the line of an instruction that is not done. */
export function checkInstruction({ keyword, line }: Instruction): void {
  if (!Object.hasOwn(instructions, keyword)) throw faultAt(line, `${keyword} is not done here`)
}

/** Does one instruction. Throws Error with what is wrong, in words. */
export async function runInstruction(stage: Stage, instruction: Instruction, context: InstructionContext): Promise<void> {
  await setInstruction(stage, instruction, context)
  await instructions[instruction.keyword]?.work?.(stage, instruction, context)
}

/** Does of one instruction what concerns those after it and no files. Throws as `runInstruction`. */
export async function setInstruction(stage: Stage, instruction: Instruction, context: InstructionContext): Promise<void> {
  checkInstruction(instruction)
  await instructions[instruction.keyword]?.set?.(stage, instruction, context)
}

/** All that the work of an instruction depends on besides the files before it, after `setInstruction`; undefined for one that does nothing to files. Throws as `runInstruction`. */
export async function describeInstruction(stage: Stage, instruction: Instruction, context: InstructionContext): Promise<unknown> {
  return await instructions[instruction.keyword]?.describe?.(stage, instruction, context)
}

/** Whether what comes of it is worth being kept. */
export const isKept = ({ keyword }: Instruction): boolean => ['RUN', 'COPY', 'ADD'].includes(keyword)

const env: Step = (stage, instruction, { escapeSign }) => {
  // All are read before one is set: those of an instruction do not see each other.
  for (const { name, value } of readEnv(instruction, escapeSign, (variable) => stage.lookup(variable))) stage.settings.environment[name] = value
  stage.checkEnvironment()
}

const arg: Step = (stage, instruction, { escapeSign, globals, buildArgs }) => {
  for (const { name, value } of readArg(instruction, escapeSign, (variable) => stage.lookup(variable))) {
    const chosen = buildArgs[name] ?? value ?? globals[name]
    if (chosen !== undefined) stage.settings.args[name] = chosen
  }
  stage.checkEnvironment()
}

const workdir: InstructionKind = {
  set(stage, instruction, { escapeSign }) {
    const path = expandText(instruction.text, { escapeSign, lookup: (name) => stage.lookup(name), line: instruction.line })
    if (path === '') throw new MagsError('image_invalid', 'WORKDIR needs a folder')
    stage.settings.workingDirectory = stage.resolve(path)
  },
  async work(stage) {
    await stage.work('umask 022; mkdir -p -- "$1"', [stage.settings.workingDirectory])
  },
  describe: (stage) => ['WORKDIR', stage.settings.workingDirectory],
}

const user: Step = (stage, instruction, { escapeSign }) => {
  stage.settings.user = expandText(instruction.text, { escapeSign, lookup: (name) => stage.lookup(name), line: instruction.line })
}

const shell: Step = (stage, { line, list }) => {
  if (list === undefined || list.length === 0) throw faultAt(line, 'SHELL needs a JSON array, such as ["/bin/bash", "-c"]')
  stage.settings.shell = list
}

const program =
  (what: 'command' | 'entrypoint'): Step =>
  (stage, { list, text }, { progress }) => {
    stage.settings[what] = list ?? [...stage.settings.shell, text]
    // Docker does the same: a command of the image below does not belong to another entrypoint.
    if (what === 'entrypoint') stage.settings.command = undefined
    progress.say(`${what === 'command' ? 'CMD' : 'ENTRYPOINT'} is noted; jobs run their own script`)
  }

const ignored: InstructionKind = { set: (_stage, { keyword }, { progress }) => progress.say(`${keyword} means nothing here and is left out`) }

const instructions: Readonly<Record<string, InstructionKind>> = {
  RUN: runCommand,
  COPY: copyInstruction,
  ADD: copyInstruction,
  ENV: { set: env },
  ARG: { set: arg },
  WORKDIR: workdir,
  USER: { set: user },
  SHELL: { set: shell },
  CMD: { set: program('command') },
  ENTRYPOINT: { set: program('entrypoint') },
  LABEL: ignored,
  MAINTAINER: ignored,
  EXPOSE: ignored,
  STOPSIGNAL: ignored,
  HEALTHCHECK: ignored,
  VOLUME: ignored,
}
