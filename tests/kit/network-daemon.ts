import { spawn } from 'node:child_process'
import { openNetwork } from '@mags/host'
import { pino } from 'pino'

/**
 * A process that owns a network, to be killed by tests: opens instance and folder given, makes container slots 0 and 1, starts a program in slot 0 that
 * outlives it, and says `ready <pid of that program>`.
 */
const [instance = '', runDir = '', dnsServer = ''] = process.argv.slice(2)
const network = await openNetwork({ instance, runDir, logger: pino({ level: 'silent' }), dnsServers: [dnsServer] })
const [slot] = await network.createContainerSlots([0, 1])
const sandbox = spawn('nsenter', [`--net=${slot?.netnsPath}`, 'sleep', '600'], { detached: true, stdio: 'ignore' })
process.stdout.write(`ready\n${sandbox.pid}\n`)
setInterval(() => undefined, 60_000)
