// RUN: programs started on behalf of the daemon.
#pragma once
#include <sys/types.h>

#include "outcome.h"
#include "request.h"

// Remembers the mount namespace this is called in: that of the daemon. Before overlay_prepare.
struct outcome run_prepare(void);
// The mount namespace the programs run in.
int run_daemon_mounts(void);
// Starts the program; `child` and a `pidfd` for its end on success.
struct outcome run_start(const struct request *request, pid_t *child, int *pidfd);
// Takes the exit status of a child that has ended.
struct outcome run_finish(pid_t child);
