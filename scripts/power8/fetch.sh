# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0 OR MIT
#
# Sourced by scripts/power8-vm, record-guest and record-check: QEMU, a kernel and the cross compiler, out of
# Debian packages.
# Nothing is installed: apt works in a folder of its own, on a copy of dpkg's status, and what it
# downloads is unpacked into the cache. A piece is made in a temporary folder and renamed when it is
# whole, so that its name in the cache means that it can be used.
#
#   have_qemu PATH           true if it runs and is new enough
#   fetch_qemu               sets qemu=(COMMAND...) from the cache
#   fetch_linux              sets kernel, modules, busybox from the cache, for pages of $linux (64k or 4k)
#   fetch_cross              sets cross to the folder of the cross tools' wrappers

qemu_major=10
linux_series=6.12
linux_release=trixie
# Which modules are kept of Linux' package, and under what name it is cached with them.
linux_modules=('*/vfio*.ko*')
linux_piece=linux

piece() { # NAME FUNCTION: $cache/NAME, made by `FUNCTION FOLDER` unless it is there
    local new
    [[ ! -d $cache/$1 ]] || return 0
    new=$(mktemp -d "$cache/tmp.XXXXXX")
    "$2" "$new"
    chmod 755 "$new"
    mv -T "$new" "$cache/$1"
}

# The machine's archive: URI, release and component of each source, as apt itself reads its settings.
debian_sources() {
    command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null ||
        die 4 "no apt-get and dpkg-deb here to fetch $1 with; $2"
    codename=$(sed -n 's/^VERSION_CODENAME=//p' /etc/os-release)
    codename=${codename:-sid}
    sources=$(apt-get indextargets --format '$(REPO_URI) $(RELEASE) $(COMPONENT)' \
        'Created-By: Packages' | awk '$3 == "main"' | sort -u)
    mirror=${mirror:-$(awk -v c="$codename" '
        $2 == c || $2 ~ /^(oldstable|stable|testing|unstable|sid)$/ { print $1; exit }' \
        <<<"$sources")}
    [[ -n $mirror ]] || die 4 "apt's settings name no Debian archive to fetch $1 from: --mirror, or $2"
}

# What vouches for the archive: Debian's keyring and those that the machine's own sources name.
# Without any of them apt falls back on its trusted keys; it is never told to skip the check.
signed_by() {
    local file list=()
    for file in /usr/share/keyrings/debian-archive-keyring.{gpg,pgp} \
        $(sed -n 's/.*[Ss]igned-[Bb]y[:=] *\(\/[^] ]*\).*/\1/p' \
            /etc/apt/sources.list /etc/apt/sources.list.d/*.{list,sources} 2>/dev/null || true); do
        [[ -r $file && " ${list[*]} " != *" $file "* ]] && list+=("$file")
    done
    (
        IFS=,
        echo "${list[*]:+[signed-by=${list[*]}]}"
    )
}

# A private apt in FOLDER for packages of ARCHITECTURE, knowing the sources "URI SUITE" on its input.
private_apt() { # FOLDER ARCHITECTURE STATUS-FILE
    local signed uri suite
    apt=$1
    mkdir -p "$apt"/{lists,archives}/partial
    cp "$3" "$apt/status"
    signed=$(signed_by)
    while read -r uri suite; do
        echo "deb $signed $uri $suite main"
    done >"$apt/sources.list"
    {
        # How to reach the archive (proxies and the like) is the machine's business, what to run
        # after an update (hooks that clean its own cache) is not ours.
        apt-config dump | grep -E '^Acquire::(http|https|Check|Retries|ForceIP)' || true
        cat <<END
Dir::Etc::main "/dev/null";
Dir::Etc::parts "/dev/null";
Dir::Etc::preferences "/dev/null";
Dir::Etc::preferencesparts "/dev/null";
Dir::Etc::sourceparts "/dev/null";
Dir::Etc::sourcelist "$apt/sources.list";
Dir::State "$apt";
Dir::State::lists "$apt/lists";
Dir::State::status "$apt/status";
Dir::Cache "$apt";
Dir::Cache::archives "$apt/archives";
APT::Architecture "$2";
APT::Install-Recommends "false";
APT::Sandbox::User "root";
Acquire::Languages "none";
END
        [[ $2 == "$(dpkg --print-architecture)" ]] || echo "APT::Architectures { \"$2\"; };"
    } >"$apt/apt.conf"
    # One source that cannot be read need not matter: what is missing is asked for by name later.
    apt_run apt-get update || true
}

# Its messages are shown as they come on a terminal, and otherwise only if it fails.
apt_run() {
    if [[ -t 2 ]]; then
        APT_CONFIG=$apt/apt.conf "$@" >&2
    else
        APT_CONFIG=$apt/apt.conf "$@" >>"$apt/messages" 2>&1
    fi
}

apt_failed() { # WHAT ALTERNATIVE
    [[ ! -s $apt/messages ]] || grep -E '^(E:|W:|Err:|dpkg)|No space' "$apt/messages" | tail -n 8 >&2 || true
    die 4 "could not fetch $1 ($(df -h --output=avail "$cache" | tail -n 1 | tr -d ' ') free in $cache); $2"
}

# The machine's own packages, so that apt resolves only what the machine lacks according to
# STATUS-FILE.
host_apt() { # FOLDER STATUS-FILE
    local suite
    for suite in "$codename"{-updates,-security}; do
        awk -v s="$suite" '$2 == s { print $1, $2; exit }' <<<"$sources"
    done | {
        echo "$mirror $codename"
        echo "$mirror $codename-backports"
        cat
    } >"$1.sources"
    private_apt "$1" "$(dpkg --print-architecture)" "$2" <"$1.sources"
    rm "$1.sources"
}

unpack_all() { # FOLDER
    local deb
    for deb in "$apt"/archives/*.deb; do
        dpkg-deb -x "$deb" "$1" || return
        basename "$deb" >>"$1/packages"
    done
}

have_qemu() {
    local version
    version=$("$@" --version 2>/dev/null | sed -n '1s/.*version \([0-9]*\).*/\1/p')
    [[ -n $version && $version -ge $qemu_major ]]
}

library_path() { # FOLDER
    local dirs=("$1"/usr/lib/*-linux-gnu* "$1"/lib/*-linux-gnu*)
    local IFS=:
    echo "${dirs[*]}"
}

qemu_hint="or give --qemu PATH of a qemu-system-ppc64 >= $qemu_major"

make_qemu() {
    local release=()
    note "fetching QEMU"
    debian_sources QEMU "$qemu_hint"
    host_apt "$1/apt" /var/lib/dpkg/status
    if ! dpkg --compare-versions \
        "$(APT_CONFIG=$apt/apt.conf apt-cache policy qemu-system-ppc | awk '/Candidate:/ { print $2 }')" \
        ge "1:$qemu_major"; then
        release=(-t "$codename-backports")
    fi
    if ! apt_run apt-get install -y --download-only "${release[@]}" qemu-system-ppc ||
        ! unpack_all "$1" 2>>"$apt/messages"; then
        apt_failed "QEMU" "$qemu_hint"
    fi
    rm -rf "$apt"
    qemu_in "$1"
    have_qemu "${qemu[@]}" || die 4 "the QEMU that this release offers is older than $qemu_major; $qemu_hint"
}

qemu_in() {
    qemu=(env "LD_LIBRARY_PATH=$(library_path "$1")" "$1/usr/bin/qemu-system-ppc64"
        -L "$1/usr/share/qemu")
}

fetch_qemu() {
    if [[ -d $cache/qemu ]]; then
        qemu_in "$cache/qemu"
        # The machine may have changed under it: it uses what libraries the machine had.
        have_qemu "${qemu[@]}" || rm -rf "$cache/qemu"
    fi
    piece qemu make_qemu
    qemu_in "$cache/qemu"
}

linux_hint="or give --kernel VMLINUX, --modules DIR and --busybox FILE"

newest_linux() { # SUFFIX
    APT_CONFIG=$apt/apt.conf apt-cache pkgnames "linux-image-$linux_series." |
        grep -E "^linux-image-$linux_series\.[^-]*-powerpc64le$1\$" | sort -V | tail -n 1 || true
}

# A mirror in the midst of an update has a release whose index is not the one signed; the next
# candidates carry kernels of the same series.
linux_sources() {
    printf '%s\n' "$linux_release" stable "bookworm bookworm-backports"
}

make_linux() {
    local suffix=-64k image='' got='' suites suite
    [[ $linux == 64k ]] || suffix=
    note "fetching Linux $linux_series with $linux pages"
    debian_sources Linux "$linux_hint"
    : >"$1/status"
    # An index may name a package that the pool has not got yet, or not any more.
    while read -r suites; do
        rm -rf "$1/apt"
        for suite in $suites; do
            echo "$mirror $suite"
        done >"$1/sources"
        private_apt "$1/apt" ppc64el "$1/status" <"$1/sources"
        image=$(newest_linux "$suffix")
        if [[ -z $image ]]; then
            note "no ppc64el kernel $linux_series could be found in: $suites"
            continue
        fi
        (cd "$apt/archives" && apt_run apt-get download "$image" busybox-static) && got=1 && break
        note "$image and busybox-static could not be had from: $suites"
    done < <(linux_sources)
    [[ -n $got ]] || apt_failed "${image:-Linux}" "$linux_hint"
    # Of the package only these few files are needed.
    if ! dpkg-deb --fsys-tarfile "$apt/archives/$image"_*.deb |
        tar -C "$1" -x --wildcards './boot/vmlinux-*' "${linux_modules[@]}" 2>>"$apt/messages" ||
        ! dpkg-deb -x "$apt"/archives/busybox-static_*.deb "$1" 2>>"$apt/messages"; then
        apt_failed "$image and busybox-static" "$linux_hint"
    fi
    (cd "$apt/archives" && printf '%s\n' *.deb) >"$1/packages"
    rm -rf "$apt" "$1/status" "$1/sources"
    note "got $image"
}

fetch_linux() {
    local folder=$cache/$linux_piece-$linux
    piece "$linux_piece-$linux" make_linux
    kernel=${kernel:-$(printf '%s\n' "$folder"/boot/vmlinux-*)}
    modules=${modules:-$folder}
    busybox=${busybox:-$(find "$folder" -path '*/bin/busybox')}
}

cross_prefix=powerpc64le-linux-gnu
cross_packages=(gcc-powerpc64le-linux-gnu libc6-dev-ppc64el-cross)
cross_hint="or install ${cross_packages[*]}, or give --bin DIR with static powerpc64le programs"

make_cross() {
    local tool
    note "fetching the cross compiler"
    debian_sources "the cross compiler" "$cross_hint"
    # A part of it that is installed would be of no use to the rest of it here.
    awk 'BEGIN { RS = ""; ORS = "\n\n" } !/^Package: [^\n]*(-cross|powerpc64le-linux-gnu)/' \
        /var/lib/dpkg/status >"$1/status"
    host_apt "$1/apt" "$1/status"
    rm "$1/status"
    if ! apt_run apt-get install -y --download-only "${cross_packages[@]}" ||
        ! unpack_all "$1" 2>>"$apt/messages"; then
        apt_failed "the cross compiler" "$cross_hint"
    fi
    rm -rf "$apt"
    mkdir "$1/wrappers"
    for tool in gcc ar; do
        cp "$here/power8/cross-tool" "$1/wrappers/$cross_prefix-$tool"
    done
    echo 'int main(void) { return 0; }' |
        "$1/wrappers/$cross_prefix-gcc" -static -x c -o "$1/probe" - ||
        die 4 "the fetched cross compiler does not work on this machine; $cross_hint"
    rm "$1/probe"
}

fetch_cross() {
    piece cross make_cross
    cross=$cache/cross/wrappers
}
