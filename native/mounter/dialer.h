#pragma once

// `mounter dial`: makes TCP connections inside the network namespaces of sandboxes and hands them to the daemon; its protocol is in dial-request.h. A program
// of its own beside the one that mounts: it has no business with mounts, and nothing a sandbox does to its connections may hold up an ATTACH. Returns the exit code.
int dialer_run(void);
