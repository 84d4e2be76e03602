#!/bin/bash
# Boots a systemd of its own over a copy-on-write view of this machine, runs one program in it, and
# exits with that program's status.
#
#   boot.sh CGROUP ROOM OUT DEPENDENCIES PROGRAM...
#
# CGROUP        an empty group of cgroup2; the box sees it as the root of all groups
# ROOM          an empty folder; what the box writes is in memory, mounted there
# OUT           a folder that the box and this machine share, as /box
# DEPENDENCIES  site-packages with all that hal0 needs, seen as /opt/dependencies
# PROGRAM       what is run in the box
#
# Everything but the group is gone with the last process of the box, however it ended: mounts,
# processes and the network are namespaces of its own. Needs root and overlayfs.
set -euo pipefail
umask 022 # the box's root is made here, and its services are not root

enter() {
    echo $$ >"$1/cgroup.procs"
    exec unshare --mount --propagation private --pid --fork --kill-child --cgroup --uts --ipc --net \
        bash "${BASH_SOURCE[0]}" within "${@:2}"
}

# What a box has no use for, or no right to.
readonly MASKED=(
    dev-hugepages.mount dev-mqueue.mount proc-sys-fs-binfmt_misc.automount
    sys-fs-fuse-connections.mount sys-kernel-config.mount sys-kernel-debug.mount
    sys-kernel-tracing.mount cryptsetup.target integritysetup.target veritysetup.target
    kmod-static-nodes.service systemd-{binfmt,firstboot,hwdb-update,logind}.service
    systemd-{machine-id-commit,modules-load,network-generator,pstore,random-seed}.service
    systemd-{remount-fs,sysctl,tmpfiles-setup-dev,udevd,udev-trigger,update-utmp}.service
)

lay_out() { # lay_out ROOM OUT DEPENDENCIES: leaves the box's root in $root
    mount -t tmpfs -o mode=755 box "$1"
    mkdir "$1"/{changes,work,root}
    mount -t overlay -o "lowerdir=/,upperdir=$1/changes,workdir=$1/work" box "$1/root"
    root=$1/root
    mkdir -p "$root/box" "$root/opt/dependencies" "$root/.old"
    mount --bind "$2" "$root/box"
    mount --bind -o ro "$3" "$root/opt/dependencies"
    mount -t proc proc "$root/proc"
    mount -t sysfs -o ro sysfs "$root/sys"
    mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup"
    mount -t tmpfs -o mode=755 run "$root/run"
    mount -t tmpfs -o mode=1777 tmp "$root/tmp"
    lay_out_devices "$root/dev"
}

lay_out_devices() {
    mount -t tmpfs -o mode=755 dev "$1"
    local name
    for name in null zero full random urandom tty; do
        : >"$1/$name"
        mount --bind "/dev/$name" "$1/$name"
    done
    mkdir "$1"/{pts,shm}
    mount -t devpts -o newinstance,ptmxmode=0666 devpts "$1/pts"
    mount -t tmpfs -o mode=1777 shm "$1/shm"
    ln -s pts/ptmx "$1/ptmx"
    ln -s /proc/self/fd "$1/fd"
    ln -s /box/console "$1/console"
}

settle_units() { # settle_units ROOT PROGRAM...
    local etc=$1/etc/systemd/system unit
    rm -rf "$etc"
    mkdir -p "$etc"
    for unit in "${MASKED[@]}"; do ln -s /dev/null "$etc/$unit"; done
    : >"$1/etc/fstab"
    cat >"$etc/box.target" <<UNIT
[Unit]
Requires=basic.target box.service
After=basic.target
UNIT
    cat >"$etc/box.service" <<UNIT
[Unit]
After=basic.target
SuccessAction=exit-force
FailureAction=exit-force
[Service]
Type=oneshot
ExecStart=${*:2}
StandardOutput=append:/box/said
StandardError=append:/box/said
TimeoutStartSec=150
UNIT
}

within() { # within ROOM OUT DEPENDENCIES PROGRAM...
    local root
    lay_out "$1" "$2" "$3"
    : >"$2/console"
    settle_units "$root" "${@:4}"
    cd "$root"
    pivot_root . .old
    umount -l /.old
    exec env -i container=box PATH=/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8 /lib/systemd/systemd \
        --unit=box.target --show-status=no --log-level=warning --log-target=console
}

if [[ $1 == within ]]; then within "${@:2}"; else enter "$@"; fi
