# shellcheck shell=bash
# Sourced by the scripts beside it. Puts them in the root of the checkout and offers `prepare`, which
# makes .venv hold what requirements/*.txt lock. The machine needs Python 3.11 and git, no more.

unset CDPATH
cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." || exit

# Holds one line "PROFILE FINGERPRINT" for each finished set of packages. It is removed before pip runs
# and written after, so a run that was killed leaves none, and the next one starts from scratch.
readonly STAMP=.venv/.prepared

say() { printf '%s\n' "$*" >&2; }

die() {
  say "Error: $*"
  exit 69 # EX_UNAVAILABLE, as in docs/commands.md: something needed cannot be reached
}

find_python() {
  local candidate
  for candidate in python3.11 python3; do
    # Started, not only looked up: a pyenv shim exists for versions that are not active.
    if "$candidate" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null; then
      printf '%s\n' "$candidate"
      return
    fi
  done
  die "Python 3.11 was not found, neither as python3.11 nor as python3; install it and run this again."
}

lock_files() { # PROFILE: runtime, or test, which holds runtime as well
  printf '%s\n' requirements/runtime.txt
  if [[ $1 == test ]]; then printf '%s\n' requirements/test.txt; fi
}

# What .venv depends on: the interpreter (answers in 3 ms), the place of the checkout (written into
# the editable install), the project's metadata, the locks.
stamp_line() { # PROFILE
  local locks
  mapfile -t locks < <(lock_files "$1")
  printf '%s %s\n' "$1" "$(
    { .venv/bin/python -V && pwd -P && cat pyproject.toml "${locks[@]}"; } 2>/dev/null | sha256sum | cut -c 1-64
  )"
}

is_prepared() { # PROFILE
  [[ -f $STAMP && -x .venv/bin/python ]] && grep -qxF -- "$(stamp_line "$1")" "$STAMP"
}

# A moved checkout has scripts in .venv/bin that start another interpreter; a venv of someone else's may
# hold anything. Both are replaced.
is_ours() {
  [[ -f $STAMP && $(.venv/bin/python -V 2>/dev/null) == "Python 3.11."* ]] &&
    grep -qF -- " -m venv --clear $(pwd -P)/.venv" .venv/pyvenv.cfg
}

create_venv() {
  local python
  python=$(find_python)
  if [[ -e .venv ]]; then
    say "Replacing .venv, which is unfinished or was not made by these scripts for this place …"
  else
    say "Creating .venv …"
  fi
  # `python -m venv` writes its complaints (no ensurepip: Debian's python3-venv is missing) to stdout.
  "$python" -m venv --clear .venv >&2 || die "$python could not create .venv; see above."
}

pip_install() {
  .venv/bin/python -m pip install -qq --disable-pip-version-check --no-input "$@"
}

install_locks() { # PROFILE
  local locks lock count finished="" status=0
  local requirements=()
  mapfile -t locks < <(lock_files "$1")
  for lock in "${locks[@]}"; do requirements+=(-r "$lock"); done

  if is_ours; then
    finished=$(<"$STAMP")
  else
    create_venv
  fi
  rm -f "$STAMP"

  count=$(cat "${locks[@]}" | grep -E '^[a-z0-9].*==' | grep -vE "sys_platform == 'win32'|>= '3.12'" | sort -u | wc -l)
  say "Installing $count locked packages (once, about a minute) …"
  pip_install --require-hashes --only-binary :all: "${requirements[@]}" || status=$?
  if ((status == 0)); then
    # Everything this step needs is installed by now: without network, and not built in isolation.
    pip_install --no-index --no-deps --no-build-isolation -e . || status=$?
  fi
  if ((status != 0)); then
    # pip's own "failed" (1) leaves the installed packages as they were; anything else does not promise it.
    if ((status == 1)) && [[ -n $finished ]]; then printf '%s\n' "$finished" >"$STAMP"; fi
    die "the packages could not be installed; see above."
  fi

  { stamp_line runtime && if [[ $1 == test ]]; then stamp_line test; fi; } >"$STAMP.new"
  mv -f "$STAMP.new" "$STAMP"
}

prepare() { # PROFILE: runtime or test
  if is_prepared "$1"; then return; fi
  exec 9>.venv.lock # beside .venv, which may be replaced
  flock -n 9 || { say "Waiting for another run that prepares .venv …" && flock 9; }
  # Asked again: the other run may have done the work.
  if ! is_prepared "$1"; then
    install_locks "$1"
  fi
  exec 9>&- # not for the program that follows
}

install_debian() { # PACKAGE...
  say "Installing Debian packages with apt-get: $* …"
  export DEBIAN_FRONTEND=noninteractive
  apt-get update -qq >&2 && apt-get install -y -qq "$@" >/dev/null
}

has_chromium() {
  command -v chromium >/dev/null || command -v chromium-browser >/dev/null || command -v google-chrome >/dev/null
}
