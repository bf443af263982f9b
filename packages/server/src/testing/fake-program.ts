import type { ProgramRequest, RunningProgram, ScriptExit } from '@mags/protocol'
import type { FakeSandbox } from './fake-sandbox.ts'
import { interpret } from './fake-script.ts'

/** A program of a fake sandbox: `cat` gives its input back, every other command is for {@link interpret}. `sftp` is `cat`, too. */
export function startFakeProgram(
  request: ProgramRequest,
  onOutput: (source: 'stdout' | 'stderr', bytes: Uint8Array) => Promise<void> | void,
  sandbox: Pick<FakeSandbox, 'files' | 'gone'>,
): RunningProgram {
  const exit = Promise.withResolvers<ScriptExit>()
  const signals: ((signal: number) => void)[] = []
  const text = request.kind === 'command' ? (request.command.at(-1) ?? '') : 'cat'
  let sent: Promise<unknown> = Promise.resolve()
  const send = async (source: 'stdout' | 'stderr', bytes: string | Uint8Array) => {
    sent = sent.then(() => onOutput(source, Buffer.from(bytes as string)))
    await sent
    return undefined
  }
  if (text !== 'cat') {
    const script = {
      script: text,
      environment: request.environment ?? {},
      files: sandbox.files,
      stdout: (bytes: string | Uint8Array) => send('stdout', bytes),
      stderr: (bytes: string | Uint8Array) => send('stderr', bytes),
      signalled: () => new Promise<number>((resolve) => signals.push(resolve)),
    }
    void interpret(script).then(exit.resolve)
  }
  const end = (result: ScriptExit) => exit.resolve(result)
  void sandbox.gone.then(() => end({ kind: 'sandbox-lost', exitCode: 137 }))
  return {
    exit: exit.promise,
    outputEnd: exit.promise.then(() => sent).then(() => undefined),
    write: async (bytes) => void (await send('stdout', bytes)),
    end: () => {
      if (text === 'cat') void sent.then(() => end({ kind: 'exited', exitCode: 0 }))
    },
    signal: (signal) => {
      for (const listener of signals.splice(0)) listener(signal)
      if (text === 'cat') end({ kind: 'signalled', exitCode: 128 + signal })
    },
    resize: () => undefined,
    close: () => end({ kind: 'signalled', exitCode: 137 }),
  }
}
