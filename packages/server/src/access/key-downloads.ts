/** How often the private key that was made for a microVM may be downloaded; after `once` it is not on the server any more. */
export type KeyDownloads = 'always' | 'once'
