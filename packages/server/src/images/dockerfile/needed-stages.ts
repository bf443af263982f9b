import type { ParsedStage } from './parse-dockerfile.ts'

/** Numbers of the stages that the last one needs, itself among them. */
export function neededStages(stages: readonly ParsedStage[], expand: (text: string) => string): ReadonlySet<number> {
  const needed = new Set<number>()
  const visit = (index: number) => {
    const stage = stages[index]
    if (stage === undefined || needed.has(index)) return
    needed.add(index)
    for (const name of [expand(stage.image), ...copiesOf(stage)]) {
      const byName = stages.slice(0, index).findLastIndex((other) => other.name === name.toLowerCase())
      const byNumber = /^\d{1,4}$/.test(name) && Number(name) < index ? Number(name) : -1
      visit(byName === -1 ? byNumber : byName)
    }
  }
  visit(stages.length - 1)
  return needed
}

const copiesOf = ({ instructions }: ParsedStage) =>
  instructions.flatMap(({ keyword, flags }) =>
    keyword === 'COPY' ? flags.flatMap(({ name, value }) => (name === 'from' && value !== null ? [value] : [])) : [],
  )
