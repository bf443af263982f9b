import type { ExtendedAttribute } from '../../layers/layer-session.ts'
import { imageInvalid } from './image-invalid.ts'
import type { Content } from './spool.ts'

export interface NodeAttributes {
  mode: number
  uid: number
  gid: number
  mtimeNs: bigint
  attributes: readonly ExtendedAttribute[]
}

export interface FolderNode extends NodeAttributes {
  readonly kind: 'directory'
  readonly children: Map<string, Child>
}

export interface FileNode extends NodeAttributes {
  readonly kind: 'file'
  readonly content: Content
}

export interface LinkNode extends NodeAttributes {
  readonly kind: 'symlink'
  readonly target: string
}

export interface FifoNode extends NodeAttributes {
  readonly kind: 'fifo'
}

/** What one inode will be. Under several names it is a file with hard links. */
export type ImageNode = FolderNode | FileNode | LinkNode | FifoNode

export interface Child {
  readonly node: ImageNode
  /** Which of the archives on top of each other it came with. */
  readonly layer: number
}

/** A place for an entry. */
export interface Place {
  readonly folder: FolderNode
  readonly name: string
}

/** As the kernel has it (path_resolution(7)). */
const mostLinks = 40
/** What is removed folder by folder must end; no path of a system call is longer. */
const mostLevels = 2000
/** Names looked at in all. A million entries need some ten million; links through links, or whiteouts over and over, could take days. */
const mostSteps = 100_000_000
const newFolder = { mode: 0o755, uid: 0, gid: 0, mtimeNs: 0n, attributes: [] }

/**
 * The file system that an image will have, before anything of it is written. Names and paths have one character for each byte. Links are followed by the tree alone, with its root as `/`: no path of an archive ever meets a
 * file system of this machine.
 */
export class ImageTree {
  readonly root: FolderNode = { ...newFolder, kind: 'directory', children: new Map() }
  readonly #mostSteps: number
  #steps = 0

  constructor(options: { readonly mostSteps?: number } = {}) {
    this.#mostSteps = options.mostSteps ?? mostSteps
  }

  /** Work that was done on it. Throws 'image_invalid' beyond what any image needs. */
  spend(steps: number): void {
    this.#steps += steps
    if (this.#steps > this.#mostSteps) throw imageInvalid('its links and whiteouts lead through too many folders')
  }

  /** What is there; links are followed, the last one only with `follow`. */
  find(path: string, { follow = true }: { readonly follow?: boolean } = {}): ImageNode | undefined {
    const walked = this.#walk(path, follow, () => undefined)
    if (walked === undefined) return undefined
    return walked.name === undefined ? walked.folder : walked.folder.children.get(walked.name)?.node
  }

  /** The folder and name that a path of an archive means; links on the way are followed, folders on the way are made. Undefined for the root. Throws 'image_invalid' when something on the way is no folder. */
  place(path: string, layer: number): Place | undefined {
    const walked = this.#walk(path, false, (folder, name) => {
      const made: FolderNode = { ...newFolder, kind: 'directory', children: new Map() }
      folder.children.set(name, { node: made, layer })
      return made
    })
    if (walked === undefined) throw imageInvalid('something on its way is no folder', path)
    return walked.name === undefined ? undefined : { folder: walked.folder, name: walked.name }
  }

  /** The folder that a path leads to, made where it is missing; what is no folder there goes away. */
  folder(path: string): FolderNode {
    const found = this.find(path)
    if (found?.kind === 'directory') return found
    const place = this.place(path, 0)
    if (place === undefined) return this.root
    const node: FolderNode = { ...newFolder, kind: 'directory', children: new Map() }
    place.folder.children.set(place.name, { node, layer: 0 })
    return node
  }

  #walk(
    path: string,
    follow: boolean,
    make: (folder: FolderNode, name: string) => FolderNode | undefined,
  ): { folder: FolderNode; name: string | undefined } | undefined {
    const left = this.#partsOf(path)
    const trail: FolderNode[] = [this.root]
    let links = 0
    while (left.length > 0) {
      const name = left.pop() as string
      const folder = trail.at(-1) as FolderNode
      if (name === '..') {
        if (trail.length > 1) trail.pop()
        continue
      }
      const found = folder.children.get(name)?.node
      if (left.length === 0 && !(follow && found?.kind === 'symlink')) return { folder, name }
      if (found?.kind === 'symlink') {
        if (++links > mostLinks) return undefined
        if (found.target.startsWith('/')) trail.splice(1)
        left.push(...this.#partsOf(found.target))
        continue
      }
      const next = found === undefined ? make(folder, name) : found
      if (next?.kind !== 'directory') return undefined
      if (trail.length === mostLevels) throw imageInvalid(`its folders lie more than ${mostLevels} deep in one another`, path)
      trail.push(next)
    }
    return { folder: trail.at(-1) as FolderNode, name: undefined }
  }

  /** The last one first. */
  #partsOf(path: string): string[] {
    const parts = path.split('/')
    this.spend(parts.length)
    return parts.filter((part) => part !== '' && part !== '.').reverse()
  }
}
