import { describe, expect, it } from 'vitest'
import { neededStages } from './needed-stages.ts'
import { parseDockerfile } from './parse-dockerfile.ts'

const only = (text: string) => parseDockerfile(`FROM x\n${text}\n`).stages[0]?.instructions ?? []

describe('parseDockerfile', () => {
  it('puts lines together and leaves comments out', () => {
    expect(only('RUN a \\\n  # no\n\n  && b # kept\\\n  c\n# all\nrun x')).toMatchObject([
      { line: 2, keyword: 'RUN', text: 'a   && b # kept  c' },
      { line: 8, keyword: 'RUN', text: 'x' },
    ])
  })

  it('reads JSON arrays, flags and another escape character', () => {
    expect(only('RUN ["a b", "\\"c\\""]')[0]).toMatchObject({ list: ['a b', '"c"'] })
    expect(only('RUN [ -f x ]')[0]?.list).toBeUndefined()
    expect(only('COPY --from=x --chown=a:b c d')[0]).toMatchObject({
      flags: [
        { name: 'from', value: 'x' },
        { name: 'chown', value: 'a:b' },
      ],
      text: 'c d',
    })
    expect(parseDockerfile('# escape=`\nFROM x\nRUN a `\n b\\').stages[0]?.instructions[0]).toMatchObject({ text: 'a  b\\' })
  })

  it('reads heredocs', () => {
    const [run, copy, empty] = only('RUN <<-END\n\tone\n  two $A\n\tEND\nCOPY <<A <<"B" /x/\n$A\nA\n$B\nB\nCOPY <<E /y\nE')
    expect(run).toMatchObject({ heredocs: [{ name: 'END', content: 'one\n  two $A\n', expands: true }] })
    expect(copy).toMatchObject({
      text: '<<A <<"B" /x/',
      heredocs: [
        { name: 'A', content: '$A\n', expands: true },
        { name: 'B', content: '$B\n', expands: false },
      ],
    })
    expect(empty).toMatchObject({ heredocs: [{ content: '' }] })
  })

  it('parts stages, and knows which are needed', () => {
    const parsed = parseDockerfile('ARG V=1\nFROM a:$V AS One\nFROM one\nRUN x\nFROM b AS two\nCOPY --from=ONE /x /y\nFROM c\nCOPY --from=0 x y')
    expect(parsed.globals).toMatchObject([{ text: 'V=1' }])
    expect(parsed.stages.map(({ image, name }) => [image, name])).toEqual([
      ['a:$V', 'one'],
      ['one', undefined],
      ['b', 'two'],
      ['c', undefined],
    ])
    expect([...neededStages(parsed.stages, (text) => text)].sort()).toEqual([0, 3])
    expect([...neededStages(parsed.stages.slice(0, 3), (text) => text)].sort()).toEqual([0, 2])
  })

  it.each([
    ['RUN x\nFROM y', 'Dockerfile line 1: RUN comes before the first FROM'],
    ['', 'the Dockerfile has no FROM'],
    ['# only\n', 'the Dockerfile has no FROM'],
    ['FROM a b c', 'Dockerfile line 1: FROM needs an image'],
    ['FROM a\nFROM', 'Dockerfile line 2: FROM needs an image'],
  ])('refuses %j', (text, words) => expect(() => parseDockerfile(text)).toThrow(words))
})
