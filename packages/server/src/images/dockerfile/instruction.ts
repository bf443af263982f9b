import type { TaskProgress } from '../image-tasks.ts'
import type { Instruction } from './parse-dockerfile.ts'
import type { SourceTree } from './source-tree.ts'
import type { Stage } from './stage.ts'

export interface InstructionContext {
  readonly escapeSign: string
  /** ARG before the first FROM. */
  readonly globals: Readonly<Record<string, string>>
  readonly buildArgs: Readonly<Record<string, string>>
  readonly progress: TaskProgress
  /** What `--from` means; the context when it is absent. */
  readonly treeOf: (from: string | undefined) => Promise<SourceTree>
}

/** Throws Error with what is wrong, in words. */
export type Step<T = void> = (stage: Stage, instruction: Instruction, context: InstructionContext) => Promise<T> | T

/** What an instruction of a keyword does. */
export interface InstructionKind {
  /** Settings for those after it; touches no files. */
  readonly set?: Step
  /** What happens to the files of the stage. */
  readonly work?: Step
  /** All that its work depends on besides the files of before, as JSON takes it; touches no files either. */
  readonly describe?: Step<unknown>
}
