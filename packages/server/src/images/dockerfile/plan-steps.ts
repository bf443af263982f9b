import { nextKey } from '../cache/step-key.ts'
import type { InstructionContext } from './instruction.ts'
import type { Instruction } from './parse-dockerfile.ts'
import { describeInstruction, isKept, setInstruction } from './run-instruction.ts'
import type { Stage } from './stage.ts'

/** Where the files of a stage are in the cache after an instruction. */
export interface PlannedStep {
  /** Undefined from the first instruction on that cannot be done: it says why when it is its turn. */
  readonly key: string | undefined
  /** Whether they are kept under it. */
  readonly kept: boolean
}

/** Keys of the files after each instruction of a stage, without running any. `draft` is a stage of which only the settings are used. */
export async function planSteps(
  draft: Stage,
  instructions: readonly Instruction[],
  contextOf: (line: number) => InstructionContext,
  begin: string | undefined,
): Promise<PlannedStep[]> {
  const progress = { say: () => undefined, output: async () => undefined }
  const steps: PlannedStep[] = []
  let key = begin
  for (const instruction of instructions) {
    if (key !== undefined) {
      try {
        const context = { ...contextOf(instruction.line), progress }
        await setInstruction(draft, instruction, context)
        const what = await describeInstruction(draft, instruction, context)
        if (what !== undefined) key = nextKey(key, what)
      } catch {
        key = undefined
      }
    }
    steps.push({ key, kept: isKept(instruction) })
  }
  return steps
}
