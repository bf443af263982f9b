import { chmod, mkdir, readFile, rename, writeFile } from 'node:fs/promises'
import { homedir } from 'node:os'
import { dirname, join } from 'node:path'
import type { MagsTokens } from '@mags/server'

interface ClientConfig {
  api_url?: string
  api_token?: string
}

/**
 * Lets the command line on this machine in: makes sure that `~/.mags/config.json` (mode 0600) has a token of this server. A configuration for another server is left alone.
 */
export async function admitLocalClient(tokens: MagsTokens, apiUrl: string, home = homedir()) {
  const path = join(home, '.mags', 'config.json')
  const config = await readConfig(path)
  if (config.api_url !== undefined && !isLocal(config.api_url)) return
  if (config.api_url === apiUrl && config.api_token !== undefined && (await tokens.verify(config.api_token))) return
  const secret = await tokens.create('local command line')
  await mkdir(dirname(path), { recursive: true, mode: 0o700 })
  await writeFile(`${path}.part`, `${JSON.stringify({ ...config, api_url: apiUrl, api_token: secret }, undefined, 2)}\n`, { mode: 0o600 })
  await chmod(`${path}.part`, 0o600)
  await rename(`${path}.part`, path)
}

async function readConfig(path: string): Promise<ClientConfig> {
  try {
    return JSON.parse(await readFile(path, 'utf8')) as ClientConfig
  } catch {
    return {}
  }
}

function isLocal(url: string) {
  return URL.canParse(url) && ['127.0.0.1', 'localhost', '[::1]'].includes(new URL(url).hostname)
}
