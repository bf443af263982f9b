/** Where an image came from. */
export interface ImageSource {
  readonly kind: 'recipe' | 'dockerfile' | 'registry' | 'oci-layout' | 'docker-archive' | 'rootfs-tar'
  /** Recipe, file name or OCI reference as it was given. */
  readonly reference: string
  /** Of the manifest, the archive or the recipe: `sha256:…`. */
  readonly digest?: string
  /** What a container of it would run (ENTRYPOINT and CMD); noted, never run by itself. */
  readonly command?: readonly string[]
}

/** One version of an image. */
export interface ImageInfo {
  readonly name: string
  /** `sha256:` and the digest of its file system. */
  readonly digest: string
  /** The newest of its name. */
  readonly current: boolean
  /** PRETTY_NAME of its os-release, or the name. */
  readonly os: string
  /** All files as they are. */
  readonly sizeBytes: number
  /** RFC 3339. */
  readonly createdAt: string
  readonly source: ImageSource
  /** Its init program, such as `/sbin/init`, when it has one. */
  readonly init?: string
  /** Environment and working directory that the image was made with; programs get the one, scripts begin in /root all the same. */
  readonly environment?: Readonly<Record<string, string>>
  readonly workingDirectory?: string
}

/** What becomes an image. */
export type ImageOrigin =
  /** A name in `images/` of the installation; built by its own distribution's bootstrap. */
  | { readonly kind: 'recipe'; readonly recipe: string }
  /** Such as `docker://docker.io/library/alpine:3.20`, or without `docker://`; of skopeo's transports only that one, for others name files of the server. */
  | { readonly kind: 'registry'; readonly reference: string }
  /** A tar file, plain or compressed: an OCI layout, what `docker save` writes, or a root file system. */
  | {
      readonly kind: 'archive'
      readonly reference: string
      readonly content: AsyncIterable<Uint8Array>
      readonly source?: ImageSource
      /** Of a root file system, which says nothing of them itself. */
      readonly environment?: Readonly<Record<string, string>>
      readonly workingDirectory?: string
    }

/** Images of this machine. */
export interface HostImages {
  /** Every version, by name, the newest of each first. */
  list(): Promise<readonly ImageInfo[]>
  /** The newest of a name, or one version. */
  find(name: string, digest?: string): Promise<ImageInfo | undefined>
  /**
   * Makes a new version of an image and has it be the newest. `onProgress` hears each step in words. Rejects with MagsError 'image_invalid' (names the entry and the rule), 'image_source_unreachable' (names the address and how to
   * bring the image by file), 'too_large', 'bad_request' (name), and with the reason of `abort`; nothing is left then.
   */
  create(name: string, origin: ImageOrigin, onProgress: (words: string) => void, abort?: AbortSignal): Promise<ImageInfo>
  /** Takes versions away: one, or all of a name. Rejects with MagsError 'image_in_use' when a sandbox of this machine has one, or it is the default; what the server knows of uses is its own to check before. */
  remove(name: string, digest?: string): Promise<void>
  /** What jobs get that name no image, from now on and after a restart. */
  setDefault(name: string): Promise<void>
}
