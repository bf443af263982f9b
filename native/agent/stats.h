#pragma once
#include "codec.h"

int stats_read(struct stats *stats);
