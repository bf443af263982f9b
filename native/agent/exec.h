#pragma once
#include "channel.h"

// Once at the start, while /dev is still the runtime's: keeps /dev/null open and learns how the agent itself is set up.
void exec_prepare(void);
// Starts the program on `ch`; a failure becomes the channel's EXIT.
void exec_open(struct channel *ch, struct exec_request *request);
void exec_remove_script(uint32_t channel);
// A pipe whose end `ours` does not block; `theirs` is the child's.
bool open_pipe(int *ours, int *theirs, bool towards_us);
