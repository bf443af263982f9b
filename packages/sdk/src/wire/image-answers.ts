/** What the API answers about images, as it stands on the wire. */

export interface ImageSourceWire {
  kind: 'recipe' | 'dockerfile' | 'registry' | 'oci-layout' | 'docker-archive' | 'rootfs-tar'
  /** Recipe, file name or OCI reference as it was given. */
  reference: string
  digest: string | null
  /** What a container of it would run; noted only. */
  command?: string[]
}

export interface ImageWire {
  name: string
  /** What jobs get that name no image. */
  default: boolean
  /** Of the newest version. */
  digest: string
  /** How many there are. */
  versions: number
  os: string
  size_bytes: number
  created_at: string
  source: ImageSourceWire
  /** Its init program, which microVMs boot. */
  init: string | null
}

export interface ImageListWire {
  images: ImageWire[]
  total: number
  page: number
  page_size: number
}

export interface ImageVersionWire {
  digest: string
  current: boolean
  os: string
  size_bytes: number
  created_at: string
  source: ImageSourceWire
  init: string | null
  /** That it was made with; programs get it, and what a job gives goes over it. */
  environment: Record<string, string>
  working_directory: string | null
  /** What keeps it from being deleted. */
  used_by: { workspaces: string[]; jobs: string[]; microvms: string[]; other_accounts: number }
}

export interface InspectedImageWire {
  name: string
  default: boolean
  /** Newest first. */
  versions: ImageVersionWire[]
  /** Ids of jobs of the Jobs API, and names of crons, that ask for it. */
  named_by: { jobs: string[]; crons: string[] }
}

export interface ImageTaskStartedWire {
  task_id: string
  status: 'running'
}

export interface ImageTaskWire {
  task_id: string
  name: string
  kind: 'recipe' | 'dockerfile' | 'registry' | 'archive'
  reference: string
  status: 'running' | 'completed' | 'failed'
  /** Of the version that was made. */
  digest: string | null
  error: string | null
  created_at: string
  completed_at: string | null
}

export interface PrunedCacheWire {
  success: boolean
  message: string
  /** Size of what was taken away; what others share of it stays. */
  freed_bytes: number
}
