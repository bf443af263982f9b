import { imageInvalid } from './image-invalid.ts'

/** A JSON object of which nothing is known. */
export type JsonObject = Readonly<Record<string, unknown>>

/** Reads JSON that somebody else wrote. Throws 'image_invalid' naming what it is. */
export function parseJson(bytes: Buffer, what: string): unknown {
  try {
    return JSON.parse(bytes.toString('utf8'))
  } catch {
    throw imageInvalid(`${what} is no JSON`)
  }
}

export function asObject(value: unknown, what: string): JsonObject {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) throw imageInvalid(`${what} is no JSON object`)
  return value as JsonObject
}

export function asArray(value: unknown, what: string): readonly unknown[] {
  if (!Array.isArray(value)) throw imageInvalid(`${what} is no list`)
  return value
}

export function asText(value: unknown, what: string): string {
  if (typeof value !== 'string' || value.length > 4096) throw imageInvalid(`${what} is no text`)
  return value
}
