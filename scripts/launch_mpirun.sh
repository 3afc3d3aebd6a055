#!/usr/bin/env bash
# Trains on several GPUs (or, without any, in several processes) through mpirun, on this machine or on several.
# usage: scripts/launch_mpirun.sh [-n RANKS] [--hosts HOST:GPUS,HOST:GPUS,...] CONFIG [trainer's arguments]
#        RANKS: by default one for each GPU of this machine, or as many as --hosts adds up to.
#        Several machines need this folder at the same path, and ssh between them without a password.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=scripts/common.sh
source scripts/common.sh

ranks="" hosts=""
while [ $# -gt 0 ]; do
  case "$1" in
    -h | --help) sed -n '2,5s/^# //p' scripts/launch_mpirun.sh; exit 0 ;;
    -n) [ $# -ge 2 ] || fail "-n needs a number"; ranks=$2; shift 2 ;;
    --hosts) [ $# -ge 2 ] || fail "--hosts needs a list"; hosts=$2; shift 2 ;;
    *) break ;;
  esac
done
[ $# -ge 1 ] || fail "which config? usage: scripts/launch_mpirun.sh [-n RANKS] [--hosts LIST] CONFIG [arguments]"
config=$1
shift
command -v mpirun >/dev/null || fail "there is no mpirun: apt-get install openmpi-bin"
[ -x build/trainer ] || fail "there is no build/trainer: build it first (cmake -S . -B build -G Ninja && ninja -C build trainer)"

gpus=$({ nvidia-smi -L 2>/dev/null || true; } | grep -c '^GPU' || true)
if [ -z "$ranks" ]; then
  if [ -n "$hosts" ]; then
    ranks=0
    for host in ${hosts//,/ }; do
      case "$host" in
        *:*) ranks=$((ranks + ${host##*:})) ;;
        *) ranks=$((ranks + 1)) ;;
      esac
    done
  else
    ranks=$((gpus > 0 ? gpus : 1))
  fi
fi

# Threads that wait must not spin on a core that another rank needs.
export OMP_WAIT_POLICY=${OMP_WAIT_POLICY:-passive}
export NCCL_DEBUG=${NCCL_DEBUG:-WARN}

flags=(-np "$ranks" --bind-to none)
if mpirun --version 2>/dev/null | grep -q "Open MPI"; then
  [ -z "$hosts" ] || flags+=(--host "$hosts")
  [ -n "$hosts" ] || [ "$ranks" -le "$(nproc)" ] || flags+=(--oversubscribe)
  [ "$(id -u)" -ne 0 ] || flags+=(--allow-run-as-root)
  # Other machines get no environment but what is named.
  while IFS='=' read -r name _; do
    case "$name" in
      NCCL_* | OMP_NUM_THREADS | OMP_WAIT_POLICY | LD_LIBRARY_PATH) flags+=(-x "$name") ;;
    esac
  done < <(env)
elif [ -n "$hosts" ]; then
  flags+=(-hosts "$hosts")
fi
# Told to end by Ctrl-C, mpirun kills its ranks after a second, too short to write a checkpoint. SIGUSR1 it only passes on to them, and
# they take it for SIGTERM; so mpirun is kept from the terminal's signals. The second time it gets SIGTERM, which ends all at once.
setsid mpirun "${flags[@]}" build/trainer --config "$config" "$@" </dev/null &
mpirun=$!
stop=USR1
trap 'kill -s "$stop" "$mpirun" 2>/dev/null || true; stop=TERM' INT TERM HUP
# A signal interrupts wait; once mpirun has ended, it gives mpirun's exit code.
while kill -0 "$mpirun" 2>/dev/null; do wait "$mpirun" || true; done
wait "$mpirun"
