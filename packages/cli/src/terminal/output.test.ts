import { describe, expect, it } from 'vitest'
import { BrokenPipe, Output, printable } from './output.ts'
import { table } from './table.ts'

function capture({ terminal = false, env = {} }: { terminal?: boolean; env?: Record<string, string> } = {}) {
  const written = { stdout: '', stderr: '' }
  const stream = (name: 'stdout' | 'stderr') => ({
    isTTY: terminal,
    on: () => undefined,
    write: (bytes: string | Uint8Array, done: () => void) => {
      written[name] += Buffer.from(bytes).toString()
      done()
      return true
    },
  })
  return { written, output: new Output({ stdout: stream('stdout'), stderr: stream('stderr') }, env) }
}

function failing(code: string) {
  const write = (_bytes: unknown, done: (error: Error) => void) => {
    done(Object.assign(new Error(code), { code }))
    return false
  }
  const stream = { on: () => undefined, write }
  return new Output({ stdout: stream, stderr: stream }, {})
}

describe('Output', () => {
  it('dims notes on a terminal only, and not with NO_COLOR', async () => {
    const plain = capture()
    await plain.output.note('x')
    await plain.output.aside('only for who watches')
    expect(plain.written.stderr).toBe('mags: x\n')
    const terminal = capture({ terminal: true })
    await terminal.output.note('x')
    await terminal.output.aside('y')
    expect(terminal.written.stderr).toBe('\u001b[2mmags: x\u001b[22m\n\u001b[2my\u001b[22m\n')
    const colourless = capture({ terminal: true, env: { NO_COLOR: '1' } })
    await colourless.output.note('x')
    expect(colourless.written).toEqual({ stdout: '', stderr: 'mags: x\n' })
  })

  it('says nothing beside JSON', async () => {
    const { output, written } = capture({ terminal: true })
    output.json = true
    await output.note('x')
    await output.aside('x')
    await output.data({ a: 1 })
    expect(written).toEqual({ stdout: '{"a":1}\n', stderr: '' })
  })

  it('tells a broken pipe from other failures, and ignores a broken standard error', async () => {
    await expect(failing('EPIPE').out('x')).rejects.toThrow(BrokenPipe)
    await expect(failing('ENOSPC').out('x')).rejects.toThrow('ENOSPC')
    await expect(failing('EPIPE').err('x')).resolves.toBe(undefined)
  })
})

describe('printable', () => {
  it('leaves words and takes what steers a terminal', () => {
    expect(printable('ü\t\r\n\u001b[31mred\u0007\u009b')).toBe('ü\t\n\ufffd[31mred\ufffd\ufffd')
    expect(table(['A', 'B'], [['long\u001b', 'x\ny']])).toBe('A      B\nlong\ufffd  x y\n')
  })
})
