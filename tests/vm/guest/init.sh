#!/bin/busybox sh
# The first process of the machine: makes it a machine, and then either runs the
# scenario or lets systemd do so.
/bin/busybox --install -s /bin
export PATH=/usr/bin:/bin:/sbin HOME=/root

# The initramfs itself cannot be pivoted away from, as runc does for containers;
# a mount of it over itself can.
mount --bind / /new
cd /new
mount --move . /
exec chroot . /bin/sh -c '
    mount -t proc proc /proc
    mount -t sysfs sysfs /sys
    mount -t devtmpfs devtmpfs /dev
    mkdir -p /dev/pts /dev/shm
    mount -t devpts devpts /dev/pts
    mount -t tmpfs tmpfs /dev/shm
    for directory in /run /tmp /var/lib /var/log; do
        mount -t tmpfs -o mode=755 tmpfs $directory
    done
    if [ -e /vm/systemd ]; then
        exec /lib/systemd/systemd --log-target=kmsg
    fi
    mount -t cgroup2 cgroup2 /sys/fs/cgroup
    /vm/scenario.sh
'
