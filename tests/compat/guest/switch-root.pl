# Makes the root folder of this process the root of its mount namespace, and runs a program there; to be started in a mount namespace of its own.
#
#   perl switch-root.pl PROGRAM [ARGUMENT…]
#
# Programs of a virtual machine run under chroot(2), and the kernel makes no user namespace for a process whose root is not that of its mount
# namespace (user_namespaces(7), EPERM). So the same is done as by switch_root(8), from the inside: enter the namespace anew, which leads to
# its root (setns(2)), move our mount over that, and go there. Our root is found by a descriptor then, as no path leads to it.
use strict;
use warnings;
use Cwd 'getcwd';

use constant { SYS_fchdir => 81, SYS_chroot => 161, SYS_mount => 165, SYS_setns => 308, MS_MOVE => 8192, CLONE_NEWNS => 0x20000 };

sub call {
  my ($what, @arguments) = @_;
  syscall($what, @arguments) == 0 or die "switch-root: system call $what: $!\n";
}

my $directory = getcwd;
opendir my $inside, '/' or die "switch-root: /: $!\n";
my ($empty, $here, $root) = ('', '.', '/');
open my $namespace, '<', '/proc/self/ns/mnt' or die "switch-root: /proc/self/ns/mnt: $!\n";
call(SYS_setns, fileno $namespace, CLONE_NEWNS);
call(SYS_fchdir, fileno $inside);
call(SYS_mount, $here, $root, $empty, MS_MOVE, 0);
call(SYS_chroot, $here);
chdir $directory or die "switch-root: $directory: $!\n";
exec { $ARGV[0] } @ARGV or die "switch-root: $ARGV[0]: $!\n";
