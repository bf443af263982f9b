#pragma once
#include "channel.h"

// Starts to connect to 127.0.0.1:port, else [::1]:port. Port 0 is the layer worker.
void dial_open(struct channel *ch, uint16_t port);
// The socket of a connecting channel became writable.
void dial_connected(struct channel *ch);
