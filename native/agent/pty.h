#pragma once
#include <stdbool.h>
#include <stdint.h>

// A new terminal of this size. The master does not block; both are close-on-exec. False with errno.
bool pty_open(uint16_t rows, uint16_t columns, int *master, int *slave);
