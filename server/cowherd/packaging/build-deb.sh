#!/usr/bin/env bash
# Builds the Debian package of cowherd and cowherd-bench.
#
#   build-deb.sh                      builds both with profile dist, and packages them
#   build-deb.sh --built PROFILE      packages what cargo has built already with that profile
#   build-deb.sh --output PATH        writes the package there; default target/debian/
#   build-deb.sh --tool-only          only installs cargo-deb, where it is missing
#
# Needs dpkg-dev, for the libraries that the package depends on. cargo-deb comes from crates.io at
# the version below, into COWHERD_CLIENT_TOOLS (default target/client-tools).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../../.."

CARGO_DEB=3.8.0
PROFILE=dist
BUILD=yes
OUTPUT=()

usage() {
    sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "$0" >&2
    exit 2
}

TOOL_ONLY=no
while [ $# -gt 0 ]; do
    case "$1" in
        --built | --output) [ $# -ge 2 ] || usage ;;&
        --built) PROFILE=$2 BUILD=no && shift 2 ;;
        --output) OUTPUT=(--output "$2") && shift 2 ;;
        --tool-only) TOOL_ONLY=yes && shift ;;
        *) usage ;;
    esac
done

TARGET=$(realpath -m "${CARGO_TARGET_DIR:-target}")
TOOLS=${COWHERD_CLIENT_TOOLS:-$TARGET/client-tools}
PACKAGING=server/cowherd/packaging

# --- The tool -----------------------------------------------------------------------------------

if [ "$("$TOOLS/bin/cargo-deb" --version 2>/dev/null || true)" != "cargo-deb $CARGO_DEB" ]; then
    # A folder of cargo's choice: the tool's objects have no place among the project's.
    env -u CARGO_TARGET_DIR cargo install cargo-deb --version "=$CARGO_DEB" --locked --root "$TOOLS"
fi
[ $TOOL_ONLY = no ] || exit 0

# --- Binaries -----------------------------------------------------------------------------------

if [ $BUILD = yes ]; then
    cargo build --locked --profile "$PROFILE" -p cowherd -p cowherd-bench
fi
BIN=$TARGET/$PROFILE
for binary in cowherd cowherd-bench; do
    if [ ! -x "$BIN/$binary" ]; then
        echo "build-deb.sh: there is no $BIN/$binary: build it with profile $PROFILE first" >&2
        exit 1
    fi
done

# --- Generated files ----------------------------------------------------------------------------

# Beside the binaries: cargo-deb looks for target/release/... of the assets in the profile's folder.
GENERATED=$BIN/deb
mkdir -p "$GENERATED"

VERSION=$("$BIN/cowherd" --version)
VERSION=${VERSION#cowherd }
# The release's date makes equal trees give equal packages; between releases it is today.
RELEASED=$(sed -n "s/^## \[${VERSION//./\\.}\] - //p" CHANGELOG.md)
RELEASED=${RELEASED:-$(date -u +%F)}
export SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(date -u -d "$RELEASED" +%s)}

"$PACKAGING/man.sh" "$BIN" "$GENERATED" "$RELEASED"
gzip -9nf "$GENERATED/cowherd.1" "$GENERATED/cowherd-bench.1"

# The configuration is the template of the source tree, with images in the service's own folder.
sed 's|^dir \./$|dir /var/lib/cowherd|' cowherd.conf >"$GENERATED/cowherd.conf"
if ! grep -qx 'dir /var/lib/cowherd' "$GENERATED/cowherd.conf"; then
    echo "build-deb.sh: cowherd.conf has no line 'dir ./' to replace" >&2
    exit 1
fi

MAINTAINER=$(sed -n 's/^maintainer = "\(.*\)"$/\1/p' server/cowherd/Cargo.toml)
gzip -9n >"$GENERATED/changelog.Debian.gz" <<EOF
cowherd ($VERSION-1) unstable; urgency=medium

  * Release $VERSION: see /usr/share/doc/cowherd/changelog.gz.

 -- $MAINTAINER  $(LC_ALL=C date -u -R -d "@$SOURCE_DATE_EPOCH")
EOF

# --- The package --------------------------------------------------------------------------------

# The binaries are stripped whatever the profile keeps: with symbols they are some hundred MB.
"$TOOLS/bin/cargo-deb" --no-build --locked --profile "$PROFILE" -p cowherd --strip "${OUTPUT[@]}"
