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
    local wanted installed
    mapfile -t wanted < <(package_list "$@")
    installed=$(dpkg-query -W -f '${db:Status-Abbrev} ${Package}\n' "${wanted[@]}" 2>/dev/null | sed -n 's/^ii  *//p')
    printf '%s\n' "${wanted[@]}" | grep -vxF -e "$installed" || true
}
