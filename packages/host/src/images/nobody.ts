/** Who reads what strangers made has no rights on this machine. */
export const nobody = 65_534
/** For setpriv(1), before the program. */
export const nobodysRights = [`--reuid=${nobody}`, `--regid=${nobody}`, '--clear-groups', '--no-new-privs', '--bounding-set=-all', '--inh-caps=-all']
