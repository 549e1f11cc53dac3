#!/bin/bash
# strongswan6.sh FOLDER unpacks strongSwan 6 of Debian unstable, with the libraries
# it needs, into FOLDER, and writes FOLDER/run, which runs one of its programs. The
# system's packages stay as they are. For make interop6, as root.
set -euo pipefail
dir=$(realpath -m "$1")
[ ! -x "$dir/run" ] || exit 0
mkdir -p "$dir"/apt/{lists/partial,archives/partial} "$dir/debs" "$dir/tree"
touch "$dir/apt/status"
# From where the system's own packages come.
mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Component: main' | grep -v security | head -n 1)
[ -n "$mirror" ] || { echo "strongswan6.sh: apt knows no mirror of Debian's main archive" >&2; exit 1; }
echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror sid main" >"$dir/apt/sources.list"
cat >"$dir/apt/apt.conf" <<END
Dir::Etc::sourcelist "$dir/apt/sources.list";
Dir::Etc::sourceparts "-";
Dir::State::lists "$dir/apt/lists";
Dir::State::status "$dir/apt/status";
Dir::Cache "$dir/apt";
APT::Sandbox::User "root";
END
export APT_CONFIG="$dir/apt/apt.conf"
apt-get -qq update
cd "$dir/debs"
apt-get -qq download charon-systemd strongswan-swanctl strongswan-libcharon libstrongswan libstrongswan-standard-plugins \
  libstrongswan-extra-plugins libcharon-extra-plugins libcharon-extauth-plugins \
  libc6 libssl3t64 libsystemd0 libcap2 libip4tc2 zlib1g libzstd1
for deb in *.deb; do dpkg -x "$deb" "$dir/tree"; done
# Plugins are looked for in one place. The mount is seen by this process alone.
cat >"$dir/run.new" <<END
#!/bin/bash
set -e
mkdir -p /usr/lib/ipsec
mount --bind "$dir/tree/usr/lib/ipsec" /usr/lib/ipsec
libs="$dir/tree/usr/lib/\$(uname -m)-linux-gnu"
program="\$1"
shift
exec "\$(echo "\$libs"/ld-linux*.so.*)" --library-path "\$libs:/usr/lib/ipsec" "$dir/tree/usr/sbin/\$program" "\$@"
END
chmod +x "$dir/run.new"
mv "$dir/run.new" "$dir/run"
