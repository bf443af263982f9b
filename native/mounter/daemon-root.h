// Roots for containers that get theirs when they are made: mounted where RUN's programs see them.
#pragma once
#include "outcome.h"
#include "request.h"

struct outcome daemon_root_mount(const struct request *request);
struct outcome daemon_root_unmount(const struct request *request);
