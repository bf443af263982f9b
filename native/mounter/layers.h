// Layer workers (docs/layer-protocol.md): one forked for each connection on a unix socket that only root can reach.
#pragma once
#include <poll.h>
#include <stdbool.h>

enum { LAYER_WORKERS_MAX = 32, LAYER_SLOTS = 1 + LAYER_WORKERS_MAX };

// Makes the socket, 0600. 0 or an errno.
int layers_listen(const char *path);
// Fills in up to LAYER_SLOTS; returns how many.
int layers_poll(struct pollfd *fds);
// Ends the workers of which nobody wants anything any more, and waits for that: none may hold on to what is to be unmounted.
void layers_end_closed(void);
// After poll, with what layers_poll filled in: accepts, and forgets workers that ended.
void layers_serve(const struct pollfd *fds, int count);
