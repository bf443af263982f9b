type Environment = Readonly<Record<string, string>>

/** What every program in a sandbox finds in its environment: what its image was made with (such as a PATH) over what all have, and the job's own over both. */
export function sandboxEnvironment(image: Environment | undefined, own: Environment = {}): Record<string, string> {
  return {
    PATH: '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin',
    HOME: '/root',
    USER: 'root',
    LOGNAME: 'root',
    SHELL: '/bin/sh',
    LANG: 'C.UTF-8',
    ...image,
    ...own,
  }
}
