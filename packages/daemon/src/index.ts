export type { ServerOptions } from './config/server-config.ts'
export { runDoctor } from './doctor/run-doctor.ts'
export { runServer } from './run-server.ts'
