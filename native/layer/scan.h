#pragma once
#include <stdint.h>

#include "listing.h"

enum { SCAN_SAME = 0, SCAN_DIFFERENT = 1 };

// Looks at every item of a listing again. Returns one of the above for each, to be freed; NULL when everything is the same. Uses a second thread when there
// is much to do.
uint8_t *scan(const struct listing *listing, int processors);
