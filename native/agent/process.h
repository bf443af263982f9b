// Processes of the sandbox as the first of them sees them.
#pragma once
#include <stdbool.h>
#include <stdint.h>

// Blocks every signal; the descriptor becomes readable when children ended.
int process_watch(void);
// Reaps all that ended: channels' programs, workers and orphans. Call when the descriptor is readable.
void process_reap(int watch);
// Every process but the agent, when it is the first process of a pid namespace or machine; otherwise nothing, for it would hit the host's.
void process_signal_all(int signal);
uint32_t process_count(void);
