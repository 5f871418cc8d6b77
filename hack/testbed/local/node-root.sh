#!/bin/sh
# Becomes PID 1 of a node, in fresh mount, pid, uts and ipc namespaces: gives it a root of its own, then reaps orphans.
# Programs are the machine's, read-only; everything a pod or a component may write is the node's own, so that nothing
# of the machine can be changed from inside.
#   node-root.sh FOLDER NAME KUBERNETES CONTAINERD PAUSE     (folders of programs; PAUSE is a file)
set -eu
folder=$1 name=$2 kubernetes=$3 containerd=$4 pause=$5

mount --make-rprivate /
# The node's disk. Nothing on it outlives the cluster, so it is never flushed; gone with the last process of the node.
mount -o loop,nobarrier,noatime "$folder/disk.img" "$folder/disk" ||
  echo "no loop devices here: the node's disk is a folder of the machine's" >&2
disk=$folder/disk
mkdir -p "$disk/root" "$disk/var" "$disk/opt/cni/bin" "$folder/etc-work"
mount --bind "$disk/root" "$disk/root"
cd "$disk/root"
mkdir -p usr etc var opt tmp run dev proc sys root mnt old testbed/kubernetes testbed/containerd
for entry in bin sbin lib lib32 lib64 libx32; do
  if [ -L "/$entry" ]; then
    cp -Pf "/$entry" "$entry"
  elif [ -d "/$entry" ]; then
    mkdir -p "$entry"
    mount --bind -o ro "/$entry" "$entry"
  fi
done
mount --bind -o ro /usr usr
mount -t overlay -o "lowerdir=/etc,upperdir=$folder/etc,workdir=$folder/etc-work" overlay etc
mount --bind "$disk/var" var
mount --bind "$disk/opt" opt
mount -t tmpfs -o mode=1777 tmpfs tmp
mount -t tmpfs -o mode=755 tmpfs run
mount --rbind /dev dev
mount -t proc proc proc
# a fresh sysfs shows this network namespace's devices
mount -t sysfs sysfs sys
mount --rbind /sys/fs/cgroup sys/fs/cgroup
mount --bind -o ro "$kubernetes" testbed/kubernetes
mount --bind -o ro "$containerd" testbed/containerd
cp -f "$pause" testbed/pause
mkdir -p var/lib/kubelet var/lib/containerd var/lib/cni var/log/pods var/log/containers var/tmp
[ -e var/run ] || ln -s /run var/run
pivot_root . old
umount -l /old
rmdir /old
# volumes mounted by the kubelet must reach containers
mount --make-rshared /
hostname "$name"
exec /testbed/pause
