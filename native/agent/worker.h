// Work that may take long (freeing a big tree, flushing a file system) is done by a forked child, so that the agent goes on serving everything else.
#pragma once
#include <stdint.h>
#include <sys/types.h>

#include "bytes.h"

// `work` runs in the child and returns an errno below 256, which becomes the REPLY; `done` (may be NULL) runs in the agent with it before that.
void worker_start(uint32_t request, int (*work)(void *), void *argument, void (*done)(int error), struct bytes *out);
void worker_reaped(pid_t pid, int status);
