// Work on the sandbox's files as channels: each operation runs in a child of its own, in the sandbox's root. A fifo, a huge folder or a mount whose server is
// gone then holds up that child and nothing else, and what is read and written goes through the windows every program's streams have.
#pragma once
#include "channel.h"

// Starts the operation on `ch`; a failure to start becomes the channel's EXIT. Its exit code is an errno.
void file_work_open(struct channel *ch, const struct file_request *request);
