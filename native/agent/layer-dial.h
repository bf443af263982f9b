// The dial to port 0: a layer worker on what this sandbox has changed, /ws/u (vm).
#pragma once
#include <sys/types.h>

#include "channel.h"

void layer_dial_open(struct channel *ch);
void layer_dial_reaped(pid_t pid);
// Ends every worker and waits for that: none may hold on to a disk that is to be unmounted.
void layer_dial_end_all(void);
