export * from './errors.ts'
export * from './host-api.ts'
