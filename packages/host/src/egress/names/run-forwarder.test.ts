import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'
import { describe, expect, it } from 'vitest'

const program = fileURLToPath(new URL('./run-forwarder.ts', import.meta.url))

describe('the forwarder program', () => {
  it('listens, obeys, and ends with whoever started it', async () => {
    const child = spawn(process.execPath, [program, 'label', '127.0.0.1', '0'], { stdio: ['pipe', 'pipe', 'inherit'] })
    child.stdin.write(`${JSON.stringify({ kind: 'set', id: 3, address: '10.213.0.2', domains: { deny: [] } })}\n`)
    let said = ''
    for await (const text of child.stdout.setEncoding('utf8') as AsyncIterable<string>) {
      said += text
      if (said.includes('ready') && said.includes('"done","id":3')) child.stdin.end()
    }
    if (child.exitCode === null) await once(child, 'exit')
    expect(child.exitCode).toBe(0)
  })

  it('ends when it is told what it cannot read', async () => {
    const child = spawn(process.execPath, [program, 'label', '127.0.0.1', '0'], { stdio: ['pipe', 'ignore', 'ignore'] })
    child.stdin.write('no message\n')
    const [code] = (await once(child, 'exit')) as [number]
    expect(code).not.toBe(0)
  })
})
