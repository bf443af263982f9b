#pragma once
#include <stdint.h>

// A user namespace whose only use is to idmap mounts: ids 0..65535 on disk are base..base+65535 on the host, and 65536 on disk is the mounter's own 0,
// without which overlay cannot make its work directory and silently becomes read-only. The last 64 are kept. -1 with errno; do not close.
int user_namespace(uint32_t uid_base);
