#pragma once
#include "codec.h"

// One REQUEST: its REPLY is queued, or comes later from a worker. False: it breaks the protocol.
bool request_take(uint32_t request, struct reader *r, struct bytes *out);
