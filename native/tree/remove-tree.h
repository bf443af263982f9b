#pragma once
#include <stdint.h>

// Removes everything in the directory `fd` (not the directory itself) without following links or leaving its device, with a constant number of open
// descriptors whatever the depth. Takes over `fd`. Counts in `removed`. 0 or an errno: ESTALE if somebody moves directories meanwhile, EXDEV at a mount.
int remove_tree_contents(int fd, uint64_t *removed);
