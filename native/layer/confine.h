#pragma once
#include "wire.h"

// The connection becomes descriptor 0, /dev/null 1 and 2, all others but `directory` are closed. Returns what `directory` is now (-1 stays).
int confine_descriptors(int connection, int directory);
// Opens `u` of an absolute folder; no part of the path may be a link.
int confine_open(struct span folder);
// Makes the directory the root of this process and gives up everything that a layer does not need. Ends the session when that fails.
void confine(int directory);
