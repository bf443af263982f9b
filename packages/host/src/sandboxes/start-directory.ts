/** Where programs of a sandbox start unless told otherwise: its user's home. */
export const startDirectory = '/root'
