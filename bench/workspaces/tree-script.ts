/**
 * Perl (in every Debian image) that makes the tree all candidates save: 200 folders of 100 files of about 16 KB, half of it random, 326 MB in all. The same seed gives the same bytes.
 * `change` rewrites one file of each folder: 1 %.
 */
const program = `
use strict; my ($root, $seed, $first, $count) = @ARGV; srand($seed);
my @words = map { join "", map { chr(97 + int rand 26) } 1 .. 3 + int rand 8 } 1 .. 4096;
for my $d (0 .. 199) {
  mkdir "$root/d$d" or $!{EEXIST} or die "$root/d$d: $!";
  for my $f ($first .. $first + $count - 1) {
    my $text = ""; $text .= $words[rand @words] . " " while length $text < 8150;
    my $noise = pack "N*", map { int rand 4294967295 } 1 .. 2040;
    open my $out, ">", "$root/d$d/f$f" or die $!; print $out $text, $noise; close $out;
  }
}
`

export const treeBytes = 200 * 100 * 16_310

/** Shell commands, run where the tree is to be. */
export const makeTree = (root: string, seed = 1) => `mkdir -p ${root} && perl -e '${program}' ${root} ${seed} 0 100`
export const changeTree = (root: string, seed: number) => `perl -e '${program}' ${root} ${seed} ${seed % 100} 1`
