#pragma once
#include "codec.h"

// Makes this machine itself rather than a copy of a template. Does all it can and returns the first errno.
int identity_set(const struct identity *identity);
