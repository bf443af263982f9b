// SFTP version 3 (draft-ietf-secsh-filexfer-02), the server's side, with the extensions of OpenSSH's PROTOCOL that file tools ask for.
#pragma once

// Serves until the input ends and returns 0, or an errno when the other side breaks the protocol or its pipe. Relative paths start at `home`, or at the root
// when that cannot be entered. One at a time in a process: changes its directory and its file mode mask. Requests are answered in their order.
int sftp_serve(int in, int out, const char *home);
