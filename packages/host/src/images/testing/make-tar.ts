/** An entry of an archive that a test makes byte by byte; what it says need not be so. */
export interface TarPart {
  readonly name: string
  readonly type?: string
  readonly mode?: number
  readonly uid?: number
  readonly gid?: number
  readonly mtime?: number
  readonly target?: string
  readonly content?: string | Buffer
  /** Otherwise that of the content. */
  readonly sizeField?: Buffer
  readonly uidField?: Buffer
  readonly device?: readonly [major: number, minor: number]
  readonly pax?: Readonly<Record<string, string | Buffer>>
}

const blockBytes = 512

/** A whole archive, with its two empty blocks at the end. */
export function makeTar(parts: readonly TarPart[]): Buffer {
  return Buffer.concat([...parts.flatMap((part) => [...paxOf(part), header(part), padded(contentOf(part))]), Buffer.alloc(2 * blockBytes)])
}

export function folder(name: string, rest: Partial<TarPart> = {}): TarPart {
  return { name, type: '5', mode: 0o755, ...rest }
}

export function file(name: string, content: string | Buffer = '', rest: Partial<TarPart> = {}): TarPart {
  return { name, content, ...rest }
}

export function symlink(name: string, target: string, rest: Partial<TarPart> = {}): TarPart {
  return { name, type: '2', target, ...rest }
}

export function hardLink(name: string, target: string): TarPart {
  return { name, type: '1', target }
}

/** What every image needs. */
export const shell: readonly TarPart[] = [folder('bin'), file('bin/sh', '#!/nothing\n', { mode: 0o755 })]

/** A number in base 256, as GNU tar writes what octal digits cannot say. */
export function base256(value: bigint, length: number): Buffer {
  const bytes = Buffer.alloc(length)
  let left = BigInt.asUintN(length * 8, value)
  for (let at = length - 1; at >= 0; at--) {
    bytes[at] = Number(left & 0xffn)
    left >>= 8n
  }
  bytes[0] = (bytes[0] as number) | 0x80
  return bytes
}

export async function* streamOf(bytes: Buffer, pieceBytes = 10_000): AsyncGenerator<Uint8Array> {
  for (let at = 0; at < bytes.length; at += pieceBytes) yield bytes.subarray(at, at + pieceBytes)
}

function contentOf({ content = '' }: TarPart): Buffer {
  return typeof content === 'string' ? Buffer.from(content) : content
}

function padded(bytes: Buffer): Buffer {
  return Buffer.concat([bytes, Buffer.alloc((blockBytes - (bytes.length % blockBytes)) % blockBytes)])
}

function header(part: TarPart): Buffer {
  const block = Buffer.alloc(blockBytes)
  const octal = (value: number, at: number, length: number) => block.write(`${value.toString(8).padStart(length - 1, '0')}\0`, at, 'latin1')
  block.write(part.name, 0, 100, 'latin1')
  octal(part.mode ?? 0o644, 100, 8)
  octal(part.uid ?? 0, 108, 8)
  octal(part.gid ?? 0, 116, 8)
  octal(contentOf(part).length, 124, 12)
  octal(part.mtime ?? 1_700_000_000, 136, 12)
  block.write(part.type ?? '0', 156, 'latin1')
  block.write(part.target ?? '', 157, 100, 'latin1')
  block.write('ustar\0' + '00', 257, 'latin1')
  octal(part.device?.[0] ?? 0, 329, 8)
  octal(part.device?.[1] ?? 0, 337, 8)
  part.sizeField?.copy(block, 124)
  part.uidField?.copy(block, 108)
  block.fill(' ', 148, 156)
  const sum = block.reduce((total, byte) => total + byte, 0)
  block.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148, 'latin1')
  return block
}

function paxOf({ pax, name }: TarPart): Buffer[] {
  if (pax === undefined) return []
  const records = Object.entries(pax).map(([key, value]) => {
    const rest = Buffer.concat([Buffer.from(` ${key}=`), Buffer.from(value as string), Buffer.from('\n')])
    let length = rest.length + 1
    while (`${length}`.length + rest.length !== length) length++
    return Buffer.concat([Buffer.from(`${length}`), rest])
  })
  const content = Buffer.concat(records)
  return [header({ name: `PaxHeaders/${name}`.slice(0, 99), type: 'x', content }), padded(content)]
}
