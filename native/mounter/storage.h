// Operations on files and disks. They may take long, so each runs in a forked child of the mounter (which shares its mount namespace).
#pragma once
#include "outcome.h"
#include "request.h"

struct outcome storage_mount_image(const struct request *request);
struct outcome storage_unmount(const struct request *request);
struct outcome storage_reset_upper(const struct request *request);
struct outcome storage_narrow_upper(const struct request *request);
struct outcome storage_sweep_upper(const struct request *request);
// Copies into `memory`, a memfd made by storage_new_memory, and seals it.
struct outcome storage_seal(const struct request *request, int memory);
int storage_new_memory(void);
