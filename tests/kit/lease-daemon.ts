import { spawn } from 'node:child_process'
import { openNetwork } from '@mags/host'
import { pino } from 'pino'

/**
 * A process that owns a network with leased addresses, to be killed by tests: opens instance and folder given, with the prefixes (commas between), makes container slot 0 and gives it the addresses (JSON), and one
 * slot more without; starts a program in the first that outlives it, and says `ready` and the id of that program.
 */
const [instance = '', runDir = '', dnsServer = '', prefixes = '', addresses = '{}'] = process.argv.slice(2)
const network = await openNetwork({ instance, runDir, logger: pino({ level: 'silent' }), dnsServers: [dnsServer], addressPrefixes: prefixes.split(',') })
const [slot] = await network.createContainerSlots([0, 1])
if (slot === undefined) throw new Error('no slot was made')
const sandbox = spawn('nsenter', [`--net=${slot.netnsPath}`, 'sleep', '600'], { detached: true, stdio: 'ignore' })
await network.lease(slot, JSON.parse(addresses))
process.stdout.write(`ready\n${sandbox.pid}\n`)
setInterval(() => undefined, 60_000)
