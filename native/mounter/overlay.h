#pragma once
#include "outcome.h"
#include "request.h"

// Private mount namespace and attach points. Call once, before anything is mounted.
struct outcome overlay_prepare(void);
// The mounter's own mount namespace.
int overlay_own_namespace(void);

// An overlay of idmapped clones of the layers, mounted nowhere yet. The descriptor is the outcome's value.
struct outcome overlay_build(uint32_t uid_base, const char *const *lowers, int count, const char *upper, bool is_volatile);
struct outcome overlay_probe(const char *dir);
