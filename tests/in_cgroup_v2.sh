#!/bin/sh
# Run tests under cgroup v2 where this machine has none, or not for us: as root of a kernel of their own, on this
# machine's files. It is user-mode Linux: `linux.uml`, which Debian has in the package user-mode-linux.
#   tests/in_cgroup_v2.sh tests/process/test_memory_limits.py tests/process/test_cgroup_files.py
set -eu
cd "$(dirname "$0")/.."
mkdir -p .cache
folder=$(mktemp -d "$PWD/.cache/v2.XXXXXX")
trap 'rm -rf "$folder"' EXIT
cat > "$folder/init" <<END
#!/bin/sh
mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t tmpfs tmp /run; mount -t tmpfs tmp /mnt
mount -t devtmpfs dev /dev; mkdir -p /dev/shm; mount -t tmpfs shm /dev/shm; mount -t cgroup2 cgroup2 /sys/fs/cgroup
cd "$PWD" && export PATH="$PATH" HOME=/mnt TMPDIR=/mnt PYTHONDONTWRITEBYTECODE=1
{ uname -r; .venv/bin/python -m pytest -n 0 -o cache_dir=/mnt/cache --basetemp /mnt/tests $*; echo "\$?" > "$folder/rc"; } > "$folder/out" 2>&1
echo o > /proc/sysrq-trigger; sleep 60
END
chmod +x "$folder/init"
linux.uml mem=1G rootfstype=hostfs rw init="$folder/init" con=null con0=null < /dev/null > /dev/null 2>&1 || true
cat "$folder/out"
exit "$(cat "$folder/rc")"
