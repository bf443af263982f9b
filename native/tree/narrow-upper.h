// The upper folder of an overlay of which one folder counts. A disk has `u`, the upper, and `x`, what was taken out of it and is to be removed. No link is ever
// followed. Nobody else may have the disk meanwhile, and `u` must not be mounted.
#pragma once
#include <stdbool.h>
#include <stdint.h>

// A name as narrow_upper takes it: of one folder, not "." or "..".
bool narrow_name_good(const char *name);
// Takes everything but the folder `name` out of `dir`/u, by renames alone, and gives u itself the owner, mode and attributes of a new one. With `lowers` (topmost first),
// what is there under that name and is no folder goes, too, and where they show none an empty one is made: root's, 0755. 0 or an errno; whenever it ends, it may be done
// again. The folder itself stays where it is all the time.
int narrow_upper(int dir, const char *name, const char *const *lowers, int lower_count);
// Removes at most that many entries of what was taken out. 0: nothing is left; EAGAIN: something is; or an errno.
int narrow_sweep(int dir, uint64_t most);
