/** Scripts for jobs that fill their file system with what a save may stumble over. All are POSIX shell, most of them around perl, which every Debian has. */

const perl = (program: string) => `perl -e '${program}'`

/** One line that says all about /root but the times of reading: names, kinds, modes, owners, sizes, links, targets, times and contents. Folders without what depends on how a layer is stacked. */
export const digestTree = `cd /root && { { find . -type d -printf '%P %y %m %U:%G %T@\\0'; find . ! -type d -printf '%P %y %m %U:%G %s %n %l %T@\\0'; } | LC_ALL=C sort -z; find . -type f -size -64M -print0 | LC_ALL=C sort -z | xargs -0 -r sha256sum; } | sha256sum | cut -c1-64`

/** Names that are hard on whoever quotes, joins or splits them. */
export const hardNames = `mkdir -p /root/names && cd /root/names && ${perl(`
  my @names = ("line\\nbreak", "...", ".. ", " ..", "-rf", "--", "*", "\\\\", "\\"", "\\x27", "\\xff\\xfe", "caf\\xe9", "\\xed\\xa0\\x80", "\\x01\\x7f", "C:\\\\x", "%00", "n" x 255, "\\xf0\\x9f" x 127);
  for my $name (@names) { open(my $f, ">", "./$name") or die "$!"; print $f "in $name"; close $f }
  for my $name (map { "d$_" } @names) { $name = substr($name, 0, 255); mkdir "./$name" or die "$!"; open(my $f, ">", "./$name/..x") or die "$!"; close $f }
`)}`

/** A file at the end of folders that go `levels` deep, with names of so many bytes. */
export const deepTree = (levels: number, nameBytes: number) =>
  `mkdir -p /root/deep && cd /root/deep && ${perl(`
  for (1..${levels}) { mkdir "x" x ${nameBytes} or die "$!"; chdir "x" x ${nameBytes} or die "$!" }
  open(my $f, ">", "f") or die "$!"; print $f "deep"; close $f;
`)}`

/** One file with so many names. */
export const linkFarm = (count: number) =>
  `mkdir -p /root/farm && cd /root/farm && ${perl(`
  open(my $f, ">", "0") or die "$!"; print $f "one"; close $f;
  for (1..${count - 1}) { link "0", $_ or die "$!" }
`)}`

export const emptyFiles = (count: number) =>
  `mkdir -p /root/empty && cd /root/empty && ${perl(`for (1..${count}) { my $d = int($_ / 1000); mkdir $d; open(my $f, ">", "$d/$_") or die "$!"; close $f }`)}`

/** A file of 4 KiB data and 128 KiB nothing by turns. */
export const holedFile = (parts: number) =>
  `${perl(`open(my $f, ">", "/root/holes") or die "$!"; for (1..${parts}) { seek $f, 131072 * $_, 0; syswrite($f, "x" x 4096) == 4096 or die "$!" }`)}`

/** Terabytes of nothing with a word at the end. */
export const sparseFile = (bytes: number) =>
  `${perl(`open(my $f, ">", "/root/sparse") or die "$!"; sysseek $f, ${bytes - 3}, 0; syswrite($f, "end") == 3 or die "$!"`)}`

/** setxattr(2) with one value; says `ok` or why not. */
export const setAttribute = (path: string, name: string, value: string) =>
  perl(`my ($p, $n, $v) = ("${path}", "${name}", "${value}"); print syscall(188, $p, $n, $v, ${value.length}, 0) == 0 ? "ok" : "$!", "\\n"`)

/** Sets so many attributes user.0, user.1… of 4,000 bytes, as many as the file system takes; then says how many and how their bytes add up. */
export const manyAttributes = (path: string, count: number) =>
  perl(`my $p = "${path}"; for (0..${count - 1}) { my ($n, $v) = ("user.$_", chr(97 + $_) x 4000); last if syscall(188, $p, $n, $v, 4000, 0) != 0 }`)
export const showAttributes = (path: string) =>
  perl(
    `my ($p, $sum, $n) = ("${path}", 0, 0); for (0..99) { my ($name, $v) = ("user.$_", "\\0" x 5000); my $l = syscall(191, $p, $name, $v, 5000); last if $l < 0; $n++; $sum += unpack("%32C*", substr($v, 0, $l)) } print "$n $sum\\n"`,
  )

/**
 * Changes /root/arena as fast as it can until there is a /root/halt: folders become links to folders of the image and back, files come, go, grow, shrink, get other names, kinds and modes. Says `done`
 * into /root/halted.
 */
export const churn = `mkdir -p /root/arena && cd /root/arena && rm -f /root/halt /root/halted && cat > /root/churn.pl <<'PERL'
srand 7; chdir "/root/arena" or die;
sub put { my ($p, $t) = @_; open(my $f, ">", $p) or return; print $f $t; close $f }
mkdir "d"; mkdir "d/e"; mkdir "d/e/f"; put("d/e/f/inside", "mine"); symlink "/etc", "l"; symlink "../../../../../../../etc", "d/m"; put("log", "");
until (-e "/root/halt") {
  for (1..50) {
    my ($d, $l, $m) = ("d", "l", "d/m");
    syscall(316, -100, $d, -100, $l, 2);
    syscall(316, -100, $d, -100, $l, 2);
    rename "d", "t"; symlink "/etc/apt", "d"; unlink "d"; rename "t", "d";
    my $e = "d/e"; syscall(316, -100, $e, -100, $m, 2); syscall(316, -100, $e, -100, $m, 2);
    my $n = int rand 3000;
    put("f$n", "x$n " x int rand 200);
    unlink "f" . int rand 3000;
    link "f$n", "h" . int rand 500; unlink "h" . int rand 500;
    rename "f$n", "f" . int rand 3000;
    my $k = "k" . int rand 50; unlink $k; rmdir $k; my $what = int rand 4;
    $what == 0 ? mkdir($k) : $what == 1 ? symlink("/etc/shadow", $k) : $what == 2 ? syscall(133, $k, 0010644, 0) : put($k, "file");
    open(my $g, ">>", "log"); print $g "line $n\\n" x 50; close $g;
    truncate "log", int rand 5000 if rand() < 0.1;
    chmod 0600 + int rand 0100, "f$n";
    my $dir = "g" . int rand 100; mkdir $dir; put("$dir/1", "1"); if (rand() < 0.5) { unlink "$dir/1"; rmdir $dir }
  }
}
put("/root/halted", "done");
PERL
setsid perl /root/churn.pl > /dev/null 2>&1 < /dev/null &
until [ -e /root/arena/log ]; do sleep 0.1; done`
export const endChurn = 'touch /root/halt; for i in $(seq 600); do [ -e /root/halted ] && break; sleep 0.1; done; cat /root/halted'
