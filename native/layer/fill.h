#pragma once
#include <stdbool.h>

// Serves what follows an ASK_WRITE up to its end. False when the connection ended before that.
bool fill(void);
