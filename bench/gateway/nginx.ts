import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { runProgram } from './run-program.ts'
import { type Staged, serverPort } from './stage.ts'

export const nginxPort = 9090

/**
 * nginx before the same server, with connections kept open to both sides and nothing written to disk. It and its clients run in the network namespace from which the sandbox can be reached: the host has no way there.
 * So both hops are of the same kind as those of the gateway: a loopback to the client, and the sandbox's network to the server.
 */
export async function startNginx({ address, inside }: Staged, dir: string, workers: number): Promise<AsyncDisposable> {
  const home = join(dir, `nginx-${workers}`)
  await mkdir(join(home, 'logs'), { recursive: true })
  await writeFile(
    join(home, 'nginx.conf'),
    `user root; worker_processes ${workers}; daemon off; pid ${home}/pid; error_log ${home}/error.log;
events { worker_connections 4096; }
http {
  access_log off; keepalive_requests 100000000; client_body_temp_path ${home}/body; proxy_temp_path ${home}/proxy; fastcgi_temp_path ${home}/f; uwsgi_temp_path ${home}/u; scgi_temp_path ${home}/s;
  upstream server { server ${address}:${serverPort}; keepalive 128; keepalive_requests 100000000; }
  server {
    listen 127.0.0.1:${nginxPort} backlog=1024;
    location / { proxy_pass http://server; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_set_header X-Forwarded-For $remote_addr; proxy_max_temp_file_size 0; }
  }
}
`,
  )
  const child = spawn('nsenter', [...inside, 'nginx', '-p', home, '-c', join(home, 'nginx.conf'), '-e', join(home, 'error.log')], {
    stdio: ['ignore', 'inherit', 'inherit'],
  })
  const ended = once(child, 'exit')
  for (let attempt = 0; ; attempt++) {
    const answers = await runProgram('nsenter', [...inside, 'curl', '-sf', '-o', '/dev/null', `http://127.0.0.1:${nginxPort}/`]).then(
      () => true,
      () => false,
    )
    if (answers) break
    if (attempt === 100 || child.exitCode !== null) throw new Error(`nginx does not answer; see ${home}/error.log`)
    await delay(50)
  }
  return {
    [Symbol.asyncDispose]: async () => {
      child.kill('SIGTERM')
      await ended
    },
  }
}
