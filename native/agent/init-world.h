// The image's own init program as the first process of a process namespace of its own (pid_namespaces(7)), with mounts of its own whose root is the sandbox's.
// While it lives every program of the sandbox is born there. Workers of the agent never are: they must outlive it.
#pragma once
#include <stdbool.h>
#include <sys/types.h>

// 0 when one can be started now, else an errno.
int init_world_check(void);
// In the child that is to become init, made with new mount and process namespaces. `terminal` (or an empty string) becomes its console. 0 or an errno.
int init_world_compose(const char *terminal);
// It runs. `terminal` (or -1) is kept open: programs come and go on a console, and without anybody on it its other end would close.
void init_world_began(pid_t init, int terminal);
bool init_world_lives(void);
// Children made between these two are born in its process namespace, if it lives. 0 or an errno.
int init_world_join(void);
void init_world_part(void);
// In such a child: takes its mounts and root. 0 or an errno; ENOSYS when there is none.
int init_world_enter(void);
// A child of the agent ended. The mounts of a world that is over go with it.
void init_world_reaped(pid_t pid);
