#pragma once
#include "outcome.h"
#include "request.h"

// Builds the overlay and makes it the root of the process's mount namespace. Afterwards the mounter is in its own namespace again, or it has exited.
struct outcome attach_root(const struct request *request);
// Makes what a container's runtime mounts on, where the root lacks it. `root` is its descriptor.
struct outcome attach_mount_points(int root, uint32_t uid_base);
