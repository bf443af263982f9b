import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { makePlace, startDaemon } from '../kit/daemon.ts'
import { leftOf } from '../kit/leaks.ts'
import { MicrovmUser, type MicrovmWire } from '../kit/microvm-client.ts'
import { canTest, notRoot } from '../kit/require.ts'
import { httpServerLine } from '../kit/sandbox-server.ts'

const firstPort = 31_005 + (process.pid % 500) * 10
const environment = { MAGS_ISOLATION: 'vm', MAGS_POOL_MIN: '0', MAGS_SSH_FIRST_PORT: String(firstPort) }

/** Once its init has started everything; right after it began nobody answers there yet. */
const booted = `for try in $(seq 600); do [ -S /run/systemd/private ] && break; sleep 0.1; done
systemctl is-system-running --wait`

/** A service as its user installs one: it notes each of its starts, and answers on port 8080. */
const install = `set -e
cat > /usr/local/bin/greeter <<'END'
#!/bin/sh
exec ${httpServerLine} 8080
END
chmod 755 /usr/local/bin/greeter
cat > /etc/systemd/system/greeter.service <<'END'
[Service]
ExecStartPre=/bin/sh -c 'echo started >> /var/lib/greeter-starts'
ExecStart=/usr/local/bin/greeter
[Install]
WantedBy=multi-user.target
END
systemctl daemon-reload
systemctl enable --now greeter
`
const look = `(${booted}) >/dev/null 2>&1
echo "$(systemctl is-active greeter) $(wc -l < /var/lib/greeter-starts) $(cat /root/mine) $(cat /proc/1/comm) $(nproc)"`

const mainProcess = 'systemctl show --property=MainPID --value greeter'

describe.runIf(canTest('MAGS_REQUIRE_VM', notRoot))('microVMs', { timeout: 900_000 }, () => {
  it('keep files, keys, port, URL and services over stop, start, restart, and a restart of the daemon', async () => {
    await using undo = new AsyncDisposableStack()
    const folder = await mkdtemp(join(tmpdir(), 'mags-microvm-'))
    undo.defer(() => rm(folder, { recursive: true, force: true }))
    const place = undo.use(await makePlace())
    let daemon = await startDaemon(environment, place)
    undo.defer(() => daemon[Symbol.asyncDispose]())
    const user = new MicrovmUser(daemon, folder, 'box')
    const made = await user.call<MicrovmWire>('POST', '', { name: 'box', cpu: 2, memory: 512, disk: 4, image: 'debian-12' })
    expect(made).toMatchObject({ status: 'creating', init: true, ssh_port: firstPort })
    await user.downloadKey()
    const { request_id: first, url } = await user.becomes('running')
    const subdomain = new URL(url).hostname
    await user.prints(`${booted} || systemctl --failed\n${install}`)
    expect(await user.prints(`echo kept > /root/mine\n${look}`)).toBe('active 1 kept systemd 2')

    expect(await user.act('stop')).toMatch(/^stopp/)
    expect(await user.becomes('stopped')).toMatchObject({ error: null, request_id: first })
    await user.act('start')
    const { request_id: second } = await user.becomes('running')
    expect(second).not.toBe(first)
    expect(await user.prints(look)).toBe('active 2 kept systemd 2')

    await user.act('restart')
    const third = await user.becomes('running', ({ request_id }) => request_id !== second)
    expect(await user.prints(look)).toBe('active 3 kept systemd 2')

    // Its console is the log of its job, and a reboot from inside is one.
    await user.ssh('systemctl reboot')
    const fourth = await user.becomes('running', ({ request_id }) => request_id !== third.request_id)
    expect(await user.prints(look)).toBe('active 4 kept systemd 2')

    // The machine lives on over a restart of the daemon.
    const process = await user.prints(mainProcess)
    expect(await daemon.stop()).toBe(0)
    daemon = await startDaemon(environment, place)
    user.daemon = daemon
    const adopted = await user.becomes('running')
    expect(adopted).toMatchObject({ ssh_port: firstPort, request_id: fourth.request_id, image_digest: made.image_digest })
    // Only the port of the gateway is another one: the test leaves it to the daemon.
    expect(new URL(adopted.url).hostname).toBe(subdomain)
    expect(await user.prints(`${mainProcess}\n${look}`)).toBe(`${process}\nactive 4 kept systemd 2`)
    expect(await user.page()).toBe('from the sandbox\n')

    await user.ssh('poweroff')
    expect(await user.becomes('stopped')).toMatchObject({ error: null, ssh_port: firstPort })
    await user.call('DELETE', '/box')
    expect(await user.call<{ total: number }>('GET')).toMatchObject({ total: 0 })
    expect(await daemon.stop()).toBe(0)
    expect(leftOf(daemon)).toEqual([])
  })
})
