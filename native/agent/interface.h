#pragma once
#include "codec.h"

// eth0 and lo of a vm, by ioctl (netdevice(7)). 0 or an errno.
// Takes away what `interface_set6` gave: it was the address of the machine that this one is a copy of.
int interface_set(const struct network *network);
// One IPv6 address of eth0 and the way out, by rtnetlink(7), in place of those it had; nothing else is ever configured by IPv6 there, and nobody is asked. 0 or an errno.
int interface_set6(const struct network6 *network);
