// Where the sandbox's own files are. In a container the runtime's root is swapped under the agent, so `/` is right; in a vm the agent lives in its
// initramfs and visits the image's or the composed root.
#pragma once
#include <stdbool.h>

void root_set_vm(void);
bool root_is_vm(void);
// Whether it is the composed one, that programs can write to.
bool root_is_composed(void);
// `path` becomes the root of programs and requests; 0 or an errno. NULL lets go of it.
int root_use(const char *path);
// Makes the sandbox's root the agent's own for the time of a request: links with absolute targets must not lead into the initramfs. 0 or an errno.
int root_enter(void);
void root_leave(void);
// For a child about to exec: stays there, with the mounts of the image's init while that lives. 0 or an errno.
int root_enter_for_good(void);
