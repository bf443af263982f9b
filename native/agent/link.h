// The one connection to the host: a unix socket taken from a listener (container) or the virtio port (vm).
//
//     absent ──accepted──▶ hunting ──marker──▶ greeting ──HELLO──▶ ready        a marker in any state but absent leads to greeting
//     any ──broken frame, hang-up, newer connection──▶ absent (container)
//     any ──broken frame, hang-up within a frame──▶ hunting (vm, where the port stays open)
#pragma once
#include <poll.h>
#include <stdbool.h>

#include "bytes.h"

void link_listen(int listener);
void link_port(int port);

// Adds what to wait for; returns how many (at most 2).
int link_poll(struct pollfd *fds);
// After poll: accepts, reads and dispatches whatever came.
void link_serve(const struct pollfd *fds, int count);
// Where frames go; NULL while nobody is there to read them.
struct bytes *link_out(void);
// Changes with every HELLO: a reply belongs to the connection that asked.
unsigned link_generation(void);
// Writes what is queued. True when all of it left.
bool link_flush(void);
// More to read is known to be there, so poll must not wait.
bool link_unread(void);
