#pragma once
#include <stdbool.h>

#include "bytes.h"
#include "codec.h"

// Carries out one frame. False: it breaks the protocol and the connection is to be dropped.
bool dispatch(const struct header *header, uint8_t *payload, struct bytes *out);
