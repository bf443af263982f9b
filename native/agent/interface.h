#pragma once
#include "codec.h"

// eth0 and lo of a vm, by ioctl (netdevice(7)). 0 or an errno.
int interface_set(const struct network *network);
