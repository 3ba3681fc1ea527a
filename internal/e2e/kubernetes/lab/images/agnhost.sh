#!/bin/bash
# agnhost.sh ROOT: adds agnhost to a folder with busybox, and the programs that the upstream tests run in its pods, each with its libraries
# from this machine.
set -euo pipefail
. "$LAB/settings.sh"
root=$1
mkdir -p "$root"/{sbin,usr/sbin,usr/local/bin,lib,lib64,usr/lib,uploads,root,var/registry}
chmod 1777 "$root/tmp"

# add_libraries FILE copies the libraries that a program loads.
add_libraries() {
	ldd "$1" 2>/dev/null | grep -o '/[^ ]*' | while read -r library; do
		mkdir -p "$root$(dirname "$library")"
		cp -Ln "$library" "$root$library"
	done
}

for name in curl nc.openbsd dig ss ip bash iperf getent; do
	path=$(readlink -f "$(command -v "$name")")
	rm -f "$root/bin/$name"
	cp "$path" "$root/bin/$name"
	add_libraries "$path"
done
ln -sf bash "$root/bin/sh"
ln -sf nc.openbsd "$root/bin/nc"

# The C library loads these for names of hosts.
libc=$(dirname "$(ldd /bin/bash | awk '/libc\.so/ {print $3}')")
for library in libnss_dns.so.2 libnss_files.so.2 libresolv.so.2; do
	mkdir -p "$root$libc"
	cp -Ln "$libc/$library" "$root$libc/"
done
echo 'hosts: files dns' >"$root/etc/nsswitch.conf"
printf '%s\n' root:x:0:0:root:/root:/bin/sh user-defined-in-image:x:1000:1000::/:/bin/sh >"$root/etc/passwd"
printf '%s\n' root:x:0: group-defined-in-image:x:50000:user-defined-in-image >"$root/etc/group"

cp "$PROGRAMS/agnhost" "$root/agnhost"
ln -sf agnhost "$root/agnhost-2"
porter=$(go -C "$LAB/programs/agnhost" list -m -f '{{.Dir}}' k8s.io/kubernetes)/test/images/agnhost/porter
install -m 0644 "$porter/localhost.crt" "$porter/localhost.key" "$root/"
