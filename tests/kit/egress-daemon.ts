import { spawn } from 'node:child_process'
import { openNetwork } from '@mags/host'
import { pino } from 'pino'
import { Egress } from '../../packages/host/src/egress/egress.ts'

/**
 * A process that owns a network with policies, to be killed by tests: opens instance and folder given, makes container slots, one for each policy (JSON) that follows, starts a program in each that outlives it,
 * and says `ready` and the ids of those programs.
 */
const [instance = '', runDir = '', dnsServer = '', ...policies] = process.argv.slice(2)
const logger = pino({ level: 'silent' })
const network = await openNetwork({ instance, runDir, logger, dnsServers: [dnsServer] })
const slots = await network.createContainerSlots(policies.map((_, place) => place))
const egress = new Egress({ network, logger })
const programs = slots.map((slot) => spawn('nsenter', [`--net=${slot.netnsPath}`, 'sleep', '600'], { detached: true, stdio: 'ignore' }))
for (const [place, slot] of slots.entries()) await egress.of({ network: slot }).set(JSON.parse(policies[place] ?? '{}'))
process.stdout.write(`ready\n${programs.map(({ pid }) => pid).join(' ')}\n`)
setInterval(() => undefined, 60_000)
