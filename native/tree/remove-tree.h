#pragma once
#include <stdbool.h>
#include <stdint.h>

// Removes everything in the directory `fd` (not the directory itself) without following links or leaving its device, with a constant number of open
// descriptors whatever the depth. Takes over `fd`. Counts in `removed`. 0 or an errno: ESTALE if somebody moves directories meanwhile, EXDEV at a mount.
int remove_tree_contents(int fd, uint64_t *removed);
// The same with what is immutable or append-only, too, and at most that many entries: EAGAIN when there is more.
int remove_tree_part(int fd, uint64_t most);
// Lets a file or directory be removed that is immutable or append-only; without a name, `dir` itself. False when it was neither.
bool tree_unlock(int dir, const char *name);
