#!/bin/sh
# OpenSSH's own clients against an SFTP server program: whole trees there and back, links, modes, sizes beyond 32 bits, names of every kind, many files.
# usage: sftp-client-test.sh PROGRAM
set -eu
command -v sftp >/dev/null || { echo "skipped: there is no sftp client here (Debian's openssh-client)"; exit 0; }
server=$(realpath "$1")
top=$(mktemp -d)
trap 'rm -rf "$top"' EXIT
cd "$top"
mkdir local remote back local/tree local/tree/deep local/tree/deep/er "local/tree/with space"
run() { (cd "$top/local" && sftp -q -b - -D "$server $top/remote") >"$top/said"; }
same() { [ "$1" = "$2" ] || { echo "not the same: '$1' and '$2'"; exit 1; }; }

echo small >local/tree/a
chmod 640 local/tree/a
touch -d '2001-02-03 04:05:06 UTC' local/tree/a
chmod 711 local/tree/deep/er
printf x >"local/tree/with space/ä ö 日本"
printf y >"local/tree/$(printf 'not\377utf8')"
head -c 3000000 /dev/urandom >local/tree/deep/big
: >local/tree/empty
run <<END
put -pR tree
get -pR tree ../back
ls -la tree
END
diff -r local/tree remote/tree
diff -r local/tree back/tree
same "$(stat -c '%a %Y' local/tree/a)" "$(stat -c '%a %Y' back/tree/a)"
same "$(stat -c %a back/tree/deep/er)" 711
grep -q '^-rw-r----- .* 6 Feb  3  2001 a$' said

head -c 1000000 local/tree/deep/big >back/part
cp back/part remote/part
run <<END
mkdir made
rename tree/a made/b
rename -l tree/empty made/c
ln -s ../made/b tree/link
ln made/b made/hard
chmod 4711 made/b
df -h .
symlink nowhere dangling
rm dangling
reget tree/deep/big ../back/part
reput tree/deep/big part
END
same "$(stat -c '%a %h' remote/made/b) $(readlink remote/tree/link) $(ls remote/made | tr '\n' ' ')" '4711 2 ../made/b b c hard '
cmp local/tree/deep/big back/part
cmp local/tree/deep/big remote/part
for refused in 'get nothing' 'rmdir tree' 'mkdir tree' 'rename -l made/b made/c' 'cd part'; do
  if echo "$refused" | run 2>/dev/null; then echo "went well: $refused"; exit 1; fi
done

# Only what is behind 4 GiB is carried.
truncate -s 4296900000 local/large remote/large back/large
seq 20000 >>local/large
run <<END
reput large
reget large ../back/large
END
same "$(stat -c %s remote/large)" "$(stat -c %s local/large)"
for copy in remote back; do same "$(tail -c 100000 $copy/large | cksum)" "$(tail -c 100000 local/large | cksum)"; done
rm remote/large local/large back/large

mkdir local/many
(cd local/many && seq 2000 | while read -r n; do echo "$n" >"file $n"; done)
run <<END
put -R many
ls -1 many
get -R many ../back
END
diff -r local/many back/many
same "$(grep -c '/file ' said)" 2000

scp -q -D "$server" -r local/tree "any:$top/copied"
diff -r local/tree copied
scp -q -D "$server" "any:$top/remote/many/file 1*9" back
same "$(find back -maxdepth 1 -name 'file 1*' | wc -l)" 111
echo 'the SFTP server does what its clients want'
