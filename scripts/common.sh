# Sourced by the other scripts: what the project needs from Debian or Ubuntu, and how to build it.
# shellcheck shell=bash disable=SC2034

# say TEXT: in bold on a terminal.
say() { if [ -t 1 ]; then printf '\033[1m%s\033[0m\n' "$*"; else printf '%s\n' "$*"; fi; }
fail() { printf 'error: %s\n' "$*" >&2; exit 1; }

# install_packages PACKAGE...: those that are missing, through apt. Nothing is asked of apt when none is.
install_packages() {
  command -v dpkg-query >/dev/null || fail "this script installs Debian and Ubuntu packages; install by hand: $*"
  local missing=() package
  for package in "$@"; do
    [ "$(dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null)" = installed ] || missing+=("$package")
  done
  [ ${#missing[@]} -gt 0 ] || return 0
  local as_root=()
  if [ "$(id -u)" -ne 0 ]; then
    command -v sudo >/dev/null || fail "missing packages: ${missing[*]}; there is no sudo: have root run 'apt-get install ${missing[*]}'"
    as_root=(sudo)
  fi
  say "Installing ${missing[*]}"
  "${as_root[@]}" apt-get update -qq || fail "apt-get update failed; the missing packages are: ${missing[*]}"
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null \
    || fail "apt-get could not install: ${missing[*]}"
}

build_packages=(g++ cmake ninja-build ccache libyaml-cpp-dev libspdlog-dev libfmt-dev libcli11-dev nlohmann-json3-dev
  libopenblas-dev libsentencepiece-dev libjpeg-dev libpng-dev libopenmpi-dev openmpi-bin
  libsndfile1-dev libsamplerate0-dev libkissfft-dev)

# build TARGET...: configures build/ once and brings the targets up to date (all of them if none is named).
build() {
  [ -f build/build.ninja ] || cmake -S . -B build -G Ninja >build-configure.log 2>&1 || {
    cat build-configure.log >&2
    fail "cmake could not configure build/"
  }
  rm -f build-configure.log
  cmake --build build "${@/#/--target=}" || fail "the build failed"
}
