#pragma once
#include "outcome.h"
#include "request.h"

// Private mount namespace and attach points. Call once, before anything is mounted.
struct outcome overlay_prepare(void);
// The mounter's own mount namespace.
int overlay_own_namespace(void);

// Again, for a child with a copy of that namespace of its own.
struct outcome overlay_prepare_child(void);
// An overlay of clones of a request's layers (uid_base, lowers, path as the upper, flags), mounted nowhere yet. The descriptor is the outcome's value.
struct outcome overlay_build(const struct request *request);
struct outcome overlay_probe(const char *dir);
