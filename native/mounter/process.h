#pragma once
#include <stdint.h>

// The directory /proc/<pid> of the process that started then (clock ticks, field 22 of its stat). -1 with ESRCH when the pid is somebody else's by now.
// The descriptor stays with that process: after its end, opening through it fails.
int process_open(uint32_t pid, uint64_t start);
// A pidfd of that process; -1 likewise.
int process_open_pidfd(uint32_t pid, uint64_t start);
