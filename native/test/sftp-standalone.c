// The SFTP server on its own, for clients that start one: `sftp -D build/sftp-standalone`.
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "../sftp/sftp.h"

int main(int argc, char **argv) {
  char folder[4096];
  if (argc < 2 && !getcwd(folder, sizeof folder)) return 1;
  int error = sftp_serve(0, 1, argc > 1 ? argv[1] : folder);
  if (error) fprintf(stderr, "sftp: %s\n", strerror(error));
  return error;
}
