// Layer workers (docs/layer-protocol.md): one forked for each connection on a unix socket that only root can reach.
#pragma once
#include <poll.h>

enum { LAYER_WORKERS_MAX = 32, LAYER_SLOTS = 1 + LAYER_WORKERS_MAX };

// Makes the socket, 0600. 0 or an errno.
int layers_listen(const char *path);
// Fills in up to LAYER_SLOTS; returns how many.
int layers_poll(struct pollfd *fds);
// Kills the workers of which nobody wants anything any more: none may hold on to what is to be unmounted.
void layers_end_closed(void);
// Waits until those are gone, for 30 seconds each at most. For a child of the mounter: the mounter itself has others to serve.
void layers_await_ending(void);
// After poll, with what layers_poll filled in: accepts, and forgets workers that ended.
void layers_serve(const struct pollfd *fds, int count);
