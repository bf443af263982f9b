// For kernels that cannot map the ids of an overlay's layers: an image with the ids of one range of sandboxes.
#pragma once
#include "outcome.h"
#include "request.h"

// Takes about as long as a walk through the image; run it in a child.
struct outcome shift_image(const struct request *request);
