# Sourced by the scripts beside it (bash): where things are, how to become root, how to complain.
# shellcheck shell=bash

sluice_root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck disable=SC2034 # used by those who source this
sluice_cache=${SLUICE_CACHE:-${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/sluice}

say() {
    printf '%s: %s\n' "${0##*/}" "$*" >&2
}

die() {
    say "$@"
    exit 1
}

# Runs a command as root: directly, or through sudo (which may ask for a password).
as_root() {
    if [ "$(id -u)" -eq 0 ]; then
        "$@"
    elif command -v sudo >/dev/null 2>&1; then
        sudo "$@"
    else
        die "needs root or sudo for: $*"
    fi
}

# package_list NAME...: the package names of packages/NAME.txt, comments dropped.
package_list() {
    local name
    for name in "$@"; do
        sed -e 's/[[:space:]]*#.*//' -e '/^[[:space:]]*$/d' "$sluice_root/scripts/packages/$name.txt"
    done
}

# missing_packages NAME...: those of the lists that dpkg does not report as installed. No network, no root.
missing_packages() {
    local names installed
    mapfile -t names < <(package_list "$@")
    installed=$(dpkg-query -W -f '${db:Status-Abbrev} ${Package}\n' "${names[@]}" 2>/dev/null | sed -n 's/^ii  *//p') ||
        true # dpkg-query's way to say that it does not know one of them
    printf '%s\n' "${names[@]}" | grep -vxF -e "$installed" || true
}

# install_packages NAME...: the packages, with apt. Lists that are there already may name versions that the mirror no
# longer has, so they are always refreshed first.
install_packages() {
    say "installing $# packages: $*"
    as_root env DEBIAN_FRONTEND=noninteractive apt-get -q -o DPkg::Lock::Timeout=300 update >&2 ||
        say "apt-get update failed; going on with the lists that are there"
    as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq -y -o DPkg::Lock::Timeout=300 -o Dpkg::Use-Pty=0 \
        install --no-install-recommends "$@" >&2
}

# The mirror of this machine's own Debian release, as apt itself understands it: deb822 and one-line sources alike, and
# also where apt's lists have been deleted (--no-release-info), as in container images.
own_mirror() {
    local codename
    codename=$(. /etc/os-release && echo "${VERSION_CODENAME:-stable}")
    # shellcheck disable=SC2016 # apt-get expands these
    apt-get indextargets --no-release-info --format '$(REPO_URI) $(RELEASE) $(COMPONENT)' 'Created-By: Packages' |
        awk -v codename="$codename" '
            $3 != "main" || $1 ~ /security/ { next }
            !first { first = $1 }
            $2 == codename && !exact { exact = $1 }
            END { print (exact ? exact : first) }'
}

# virtual_environment NAME: a virtual environment in the cache with what packages/NAME-python.txt pins by checksum, and
# the Debian packages of packages/NAME.txt; prints its Python. Built under its final name (its scripts name their place)
# and marked when whole; a lock keeps two builds apart. Debian's own Python modules stay visible.
virtual_environment() {
    local requirements=$sluice_root/scripts/packages/$1-python.txt place whole missing
    place=$sluice_cache/$1-$(sha256sum "$requirements" | cut -c1-16)
    whole=$place/whole
    if [ -e "$whole" ]; then
        printf '%s\n' "$place/bin/python"
        return
    fi
    mapfile -t missing < <(missing_packages "$1")
    [ "${#missing[@]}" -eq 0 ] || install_packages "${missing[@]}"
    mkdir -p "$sluice_cache"
    exec 9>"$sluice_cache/$1.lock"
    flock 9
    if [ ! -e "$whole" ]; then
        say "installing what ${requirements##*/} names into $place"
        rm -rf "$place"
        /usr/bin/python3 -m venv --system-site-packages "$place"
        "$place/bin/pip" --disable-pip-version-check install -q --ignore-installed --only-binary :all: \
            --require-hashes -r "$requirements" >&2
        touch "$whole"
    fi
    printf '%s\n' "$place/bin/python"
}
