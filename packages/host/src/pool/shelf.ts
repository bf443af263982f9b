import type { Sandbox, SandboxShape } from '../drivers/driver.ts'

/** Warm sandboxes of one shape. */
export interface Shelf {
  readonly shape: SandboxShape
  readonly idle: { sandbox: Sandbox; since: number }[]
  creating: number
  /** How many to keep idle: grows with every miss, falls back when they stay unused. */
  target: number
}

/** Two shapes with the same key are served from one shelf. */
export function keyOf(shape: SandboxShape) {
  return `${shape.image} ${shape.imageDigest ?? ''} ${shape.vcpus} ${shape.memoryMb} ${shape.diskGb}`
}
