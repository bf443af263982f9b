#pragma once
#include "wire.h"

// Tells the contents of the files whose paths are in the payload of an ASK_READ; `index` counts them through a whole read.
void content_tell(struct span paths, uint32_t *index);
