import { generateSshKey, type MicrovmAnswer, type MicrovmSshAnswer } from '@mags/protocol'
import { describe, expect, it } from 'vitest'
import { databaseKinds, lacksDatabase, useTestDatabases } from '../../../../tests/kit/test-databases.ts'
import { type MicrovmClient, MicrovmWorld } from '../testing/microvm-world.ts'

const poll = { timeout: 10_000, interval: 5 }
const uuid = /^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/

const connection = async (vms: MicrovmClient, name = 'vm') =>
  (await vms.mags.call('GET', `/microvms/${name}/ssh-connection`)).body as unknown as MicrovmSshAnswer
const download = (vms: MicrovmClient, name = 'vm') => vms.mags.call('GET', `/microvms/${name}/ssh-keys/download`)

/** Of a private key of type Ed25519 (OpenSSH's PROTOCOL.key): magic, three strings, a count, and then it. */
function publicPart(privateKey: string): string {
  const blob = Buffer.from(privateKey.split('\n').slice(1, -2).join(''), 'base64')
  return blob.subarray(43, 43 + 51).toString('base64')
}

describe.each(databaseKinds)('microVMs on %s', (kind) => {
  describe.skipIf(lacksDatabase(kind))('server', () => {
    const newDatabase = useTestDatabases(kind)
    const newWorld = (...options: ConstructorParameters<typeof MicrovmWorld> extends [unknown, ...infer Rest] ? Rest : never) =>
      new MicrovmWorld(newDatabase(), ...options)

    it('makes one that boots its image, on a disk of its own', async () => {
      await using world = newWorld()
      const vms = await world.start()
      const { status, body } = await vms.create({ cpu: 1, memory: 2048, disk: 20, colour: 'red' })
      expect(status).toBe(201)
      expect(body).toMatchObject({
        id: expect.stringMatching(uuid),
        name: 'vm',
        status: 'creating',
        cpu: 1,
        memory: 2048,
        disk: 20,
        image: 'debian-12',
        ip_address: '',
        ipv6_address: '',
        created_at: expect.stringMatching(/Z$/),
        init: true,
        url: expect.stringMatching(/^http:\/\/[0-9a-f]{12}\.apps\.localhost:4780$/),
        port: 8080,
        error: null,
        ssh_port: 40_000,
        key_generated: true,
        image_digest: 'sha256:d12',
        workspace_id: `vm-${body.id}`,
        warnings: ['unknown member "colour" was ignored'],
      })
      await vms.becomes('running')
      const one = await vms.get(String(body.id))
      expect(one).toMatchObject({ status: 'running', started_at: expect.stringMatching(/Z$/), request_id: expect.stringMatching(uuid) })
      expect(one).not.toHaveProperty('warnings')
      expect(world.sandbox()).toMatchObject({
        boots: true,
        spec: { image: 'debian-12', imageDigest: 'sha256:d12', isolation: 'vm', vcpus: 1, memoryMb: 2048, diskGb: 20, persistent: true },
      })
      expect((await vms.mags.call('GET', '/microvms')).body).toEqual({ microvms: [one], total: 1, page: 1, page_size: 20 })
      expect((await vms.mags.call('GET', '/mags-jobs')).body).toMatchObject({ total: 0 })
      expect((await vms.mags.call('GET', `/mags-jobs/${one.request_id}/status`)).body).toMatchObject({ no_sleep: true, persistent: true })
    })

    it('takes the defaults, or as much as there is', async () => {
      await using world = newWorld({ capabilities: { maxVcpus: 1, maxDiskGb: 5, images: ['ubuntu-22.04'], imageDigests: { 'ubuntu-22.04': 'sha256:u22' } } })
      const vms = await world.start()
      const { body } = await vms.mags.call('POST', '/microvms', { name: 'vm', cpu: null, image: null })
      expect(body).toMatchObject({ cpu: 1, memory: 1024, disk: 5, image: 'ubuntu-22.04' })
      expect(body).not.toHaveProperty('warnings')
    })

    it('has an address of its own while it runs', async () => {
      await using world = newWorld({ capabilities: { addressPrefixes: ['203.0.113.8/30'] } })
      const vms = await world.start()
      const { ip_address, ip_lease } = await vms.running({ ip_lease: true })
      expect({ ip_address, ip_lease }).toEqual({ ip_address: expect.stringMatching(/^203\.0\.113\.\d+$/), ip_lease: true })
      expect(world.sandbox().spec.addresses).toEqual({ ipv4: ip_address })
      expect(await connection(vms)).toMatchObject({ ip_address, host: 'ssh.example.org' })
      await vms.act('stop')
      expect(await vms.get()).toMatchObject({ ip_address: '', ip_lease: true })
    })

    it('says that in a container no services start', async () => {
      await using world = newWorld({ capabilities: { vm: { available: false, detail: 'no KVM' } } })
      const vms = await world.start()
      expect(await vms.create()).toMatchObject({ status: 400, body: { error: 'isolation: "vm" cannot be had on this server: no KVM', code: 'not_available' } })
      expect((await vms.create({ isolation: 'auto', name: 'auto' })).body).toMatchObject({ init: false })
      const { body } = await vms.create({ isolation: 'container' })
      expect(body).toMatchObject({ init: false, warnings: [expect.stringContaining('services do not start by themselves')] })
      await vms.becomes('running')
      expect(await vms.act('stop')).toEqual({ success: true, status: 'stopped' })
    })

    it('refuses what cannot be, and leaves nothing behind', async () => {
      await using world = newWorld()
      const vms = await world.start()
      const large = { ...world.host.images.all[0], name: 'large', digest: 'sha256:l', sizeBytes: 1.25 * 2 ** 30 }
      world.host.images.all.push(large as (typeof world.host.images.all)[number])
      const { privateKey, publicKey } = await generateSshKey('me')
      const cpu = 'cpu: must be a whole number from 1 to 4 on this server'
      const memory = 'memory: must be a whole number from 128 to 4,096 MB on this server'
      const cases: [Record<string, unknown>, number, string | RegExp][] = [
        [{ name: undefined }, 400, 'name: is required'],
        [{ name: 'a b' }, 400, 'name: must be 1 to 63 of A-Z a-z 0-9 . _ -'],
        [{ cpu: 0 }, 422, cpu],
        [{ cpu: 5 }, 422, cpu],
        [{ cpu: 1.5 }, 422, cpu],
        [{ cpu: '2' }, 400, 'cpu: must be a number'],
        [{ memory: 64 }, 422, memory],
        [{ memory: 4097 }, 422, memory],
        [{ disk: 0 }, 422, 'disk: must be a whole number from 1 to 20 GB on this server'],
        [{ disk: 1, image: 'large' }, 422, 'disk: 1 GB is less than image large needs (1.3 GB)'],
        [
          { image: 'ubuntu-22.04' },
          400,
          /^image: "ubuntu-22.04" is not an image of this server; it has debian-12, alpine, large\. .*'mags image build ubuntu-22.04'.*'mags image import'/,
        ],
        [{ isolation: 'jail' }, 400, 'isolation: must be one of auto, vm, container'],
        [{ ip_lease: true }, 400, /^ip_lease: this server has no addresses to lease.*MAGS_IP_PREFIXES/],
        [{ port: 0 }, 400, 'port: must be a whole number from 1 to 65,535'],
        [{ ssh_public_keys: publicKey }, 400, 'ssh_public_keys: must be a list of public keys'],
        [{ ssh_public_keys: [publicKey, 'ssh-rsa AAAA'] }, 400, 'ssh_public_keys.1: is not a whole ssh-rsa key'],
        [{ ssh_public_keys: [privateKey] }, 400, 'ssh_public_keys.0: is a private key; give the public one, from the file that ends in .pub'],
      ]
      for (const [body, status, error] of cases)
        expect(await vms.create(body), String(error)).toMatchObject({
          status,
          body: { error: typeof error === 'string' ? error : expect.stringMatching(error) },
        })
      expect((await vms.mags.call('GET', '/microvms')).body).toMatchObject({ total: 0 })
      expect((await vms.mags.call('GET', '/mags-workspaces')).body).toMatchObject({ total: 0 })
      expect(world.host.acquired).toEqual([])
    })

    it('is unique by name, and made once for an Idempotency-Key', async () => {
      await using world = newWorld()
      const vms = await world.start()
      const headers = { 'idempotency-key': 'k1' }
      const first = await vms.create({}, headers)
      expect(first.status).toBe(201)
      expect(await vms.create({}, headers)).toMatchObject({ status: 201, body: first.body })
      expect(await vms.create({ cpu: 1 }, headers)).toMatchObject({ status: 409, body: { code: 'idempotency_conflict' } })
      expect(await vms.create()).toMatchObject({
        status: 409,
        body: { code: 'already_exists', error: expect.stringContaining('there is a microVM "vm" already') },
      })
      const twins = await Promise.all([1, 2, 3].map(() => vms.create({ name: 'twin' }, { 'idempotency-key': 'k2' })))
      expect(new Set(twins.map(({ body }) => body.id)).size).toBe(1)
      await vms.becomes('running')
      await vms.becomes('running', 'twin')
      expect(world.host.acquired).toHaveLength(2)
    })

    it('gives the first answer also when it is full', async () => {
      await using world = newWorld()
      const vms = await world.start({ held: true, deps: { limits: { maxPendingJobs: 1 } } })
      const headers = { 'idempotency-key': 'k' }
      const first = await vms.create({}, headers)
      expect(first.status).toBe(201)
      expect(await vms.create({ name: 'other' })).toMatchObject({ status: 503, headers: { 'retry-after': '2' } })
      expect(await vms.create({ name: 'other' }, { 'idempotency-key': 'other' })).toMatchObject({ status: 503 })
      expect(await vms.create({}, headers)).toMatchObject({ status: 201, body: first.body })
      expect((await vms.mags.call('GET', '/microvms')).body).toMatchObject({ total: 1 })
    })

    it('says 404 for one that there is not, and pages the list', async () => {
      await using world = newWorld()
      const vms = await world.start()
      const calls = [
        ['GET', ''],
        ['DELETE', ''],
        ['POST', '/start'],
        ['POST', '/stop'],
        ['POST', '/restart'],
        ['GET', '/ssh-connection'],
        ['GET', '/ssh-keys/download'],
      ] as const
      for (const [method, path] of calls)
        expect(await vms.mags.call(method, `/microvms/none${path}`)).toMatchObject({
          status: 404,
          body: { error: `no microVM "none"; 'mags vm list' shows those there are` },
        })
      for (const name of ['a', 'b', 'c']) await vms.create({ name })
      const page = (await vms.mags.call('GET', '/microvms?page=2&page_size=2')).body as { microvms: MicrovmAnswer[] }
      expect(page).toMatchObject({ total: 3, page: 2, page_size: 2 })
      expect(page.microvms.map(({ name }) => name)).toEqual(['a'])
      expect(page.microvms[0]?.ssh_port).toBe(40_000)
    })

    describe('SSH', () => {
      it('is opened by the key that was made for it, before and after it runs', async () => {
        await using world = newWorld()
        const vms = await world.start()
        const { body } = await vms.create()
        const command = `ssh -i vm-${body.id}-key.pem -o IdentitiesOnly=yes -o StrictHostKeyChecking=accept-new -p 40000 root@ssh.example.org`
        const expected = {
          ssh_command: command,
          ip_address: '',
          ipv6_address: '',
          key_generated: true,
          host: 'ssh.example.org',
          port: 40_000,
          user: 'root',
          key_file: `vm-${body.id}-key.pem`,
        }
        expect(await connection(vms)).toEqual(expected)
        await vms.becomes('running')
        const { directory } = vms.mags.server
        await expect.poll(() => directory.sshPorts(), poll).toEqual([40_000])
        const file = await download(vms)
        expect(file).toMatchObject({
          status: 200,
          headers: {
            'content-type': 'application/x-pem-file',
            'content-disposition': `attachment; filename="vm-${body.id}-key.pem"`,
            'cache-control': 'no-store',
          },
        })
        expect(file.body.text).toMatch(/^-----BEGIN OPENSSH PRIVATE KEY-----\n[\s\S]*\n-----END OPENSSH PRIVATE KEY-----\n$/)
        expect((await download(vms)).body).toEqual(file.body)
        const { request_id } = await vms.get()
        const publicKey = `ssh-ed25519 ${publicPart(String(file.body.text))}`
        expect(await directory.acceptsKey(request_id ?? '', publicKey)).toBe(true)
        expect(await directory.findBySshUser('vm', publicKey)).toMatchObject({ requestId: request_id })
        const access = await vms.mags.call('POST', `/mags-jobs/${request_id}/access`, { port: 22 })
        expect(access.body).toMatchObject({ ssh_port: 40_000, ssh_private_key: file.body.text })
        await vms.act('stop')
        expect(await connection(vms)).toEqual(expected)
        await expect.poll(() => directory.sshPorts(), poll).toEqual([])
      })

      it('is opened by the keys that it was made with, and by no other', async () => {
        await using world = newWorld()
        const vms = await world.start()
        const [mine, other, stranger] = await Promise.all(['mine', 'other', 'stranger'].map((name) => generateSshKey(name)))
        const keys = [mine, other].map((key) => key?.publicKey ?? '')
        const bare = (line: string) => line.split(' ').slice(0, 2).join(' ')
        await vms.running({ ssh_public_keys: [...keys, keys[0]] })
        const { ssh_command, key_generated, key_file } = await connection(vms)
        expect({ ssh_command, key_generated, key_file }).toEqual({
          ssh_command: 'ssh -o StrictHostKeyChecking=accept-new -p 40000 root@ssh.example.org',
          key_generated: false,
          key_file: null,
        })
        expect(await download(vms)).toMatchObject({ status: 404, body: { error: expect.stringContaining('opens to the SSH keys it was made with') } })
        const { directory } = vms.mags.server
        const { request_id, workspace_id } = await vms.get()
        const requestId = request_id ?? ''
        for (const key of keys) {
          expect(await directory.acceptsKey(requestId, bare(key))).toBe(true)
          for (const user of ['vm', workspace_id, requestId]) expect(await directory.findBySshUser(user, bare(key))).toMatchObject({ requestId })
        }
        expect(await directory.acceptsKey(requestId, bare(stranger?.publicKey ?? ''))).toBe(false)
        expect(await directory.findBySshUser('vm', bare(stranger?.publicKey ?? ''))).toBeUndefined()
        // No key is made for it by another way.
        expect(await vms.mags.call('POST', `/mags-jobs/${requestId}/access`, { port: 22 })).toMatchObject({ status: 400, body: { code: 'not_available' } })
        // The same key opens another one, too.
        await vms.running({ name: 'second', ssh_public_keys: keys })
        const second = await vms.get('second')
        expect(await directory.findBySshUser('second', bare(keys[1] ?? ''))).toMatchObject({ requestId: second.request_id })
        expect(await directory.findBySshUser('vm', bare(keys[1] ?? ''))).toMatchObject({ requestId })
      })

      it('hands its key out once where the operator wants that', async () => {
        await using world = newWorld()
        const vms = await world.start({ deps: { vmKeyDownloads: 'once' } })
        const { request_id } = await vms.running()
        expect(await vms.mags.call('POST', `/mags-jobs/${request_id}/access`, { port: 22 })).toMatchObject({ status: 400, body: { code: 'not_available' } })
        const downloads = await Promise.all([download(vms), download(vms)])
        expect(downloads.map(({ status }) => status).sort()).toEqual([200, 404])
        expect(await download(vms)).toMatchObject({
          status: 404,
          body: { error: expect.stringMatching(/was downloaded already \(\d.*Z\), and this server gives it out only once/) },
        })
        // It opens what it did before.
        const restarted = await vms.act('restart')
        expect(restarted.status).toBe('running')
        expect(await connection(vms)).toMatchObject({ key_generated: true })
        expect(await vms.mags.server.directory.sshPorts()).toEqual([40_000])
      })
    })

    describe('deletion', () => {
      it('takes disk and keys away, unsaved, and is done once', async () => {
        await using world = newWorld()
        const vms = await world.start()
        const { request_id, workspace_id } = await vms.running()
        world.sandbox().files.put('/a', '1')
        const saves = world.host.workspaces.saves
        expect(await vms.delete()).toMatchObject({ status: 200, body: { success: true, message: 'MicroVM deleted' } })
        expect(world.host.workspaces.saves).toBe(saves)
        expect(await vms.delete()).toMatchObject({ status: 404 })
        expect((await vms.mags.call('GET', `/mags-workspaces/${workspace_id}`)).status).toBe(404)
        expect(await vms.mags.status(request_id ?? '')).toMatchObject({ status: 'stopped' })
        await expect.poll(() => world.host.workspaces.removed.length, poll).toBe(1)
        expect(world.host.sandboxes.size).toBe(0)
        // Name and port are free again.
        expect(await vms.running()).toMatchObject({ ssh_port: 40_000 })
      })

      it('takes one away that is stopped or starts', async () => {
        const gate = Promise.withResolvers<void>()
        await using world = newWorld({ beforeAcquire: () => gate.promise })
        const vms = await world.start()
        await vms.create({ name: 'starts' })
        expect(await vms.delete('starts')).toMatchObject({ status: 200 })
        gate.resolve()
        await vms.running()
        await vms.act('stop')
        expect(await vms.delete()).toMatchObject({ status: 200 })
        expect((await vms.mags.call('GET', '/microvms')).body).toMatchObject({ total: 0 })
        await expect.poll(() => world.host.workspaces.removed.length, poll).toBe(2)
      })

      it('is the only way to take its disk away', async () => {
        await using world = newWorld()
        const vms = await world.start()
        const { workspace_id } = await vms.running()
        await vms.act('stop')
        expect(await vms.mags.call('DELETE', `/mags-workspaces/${workspace_id}`)).toMatchObject({
          status: 500,
          body: { code: 'workspace_in_use', error: `workspace '${workspace_id}' is the disk of microVM vm; 'mags vm delete vm' takes both away` },
        })
      })
    })
  })
})
