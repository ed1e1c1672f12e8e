#!/bin/sh
# A node's life on this machine, told on the second serial port: one section for
# each thing to know, with its output and exit code. Nothing is judged here.
export PATH=/usr/bin:/bin:/sbin HOME=/root
export KUBECONFIG=/var/lib/copepod/admin.kubeconfig
exec 3>/dev/ttyS1

# section NAME COMMAND...
section() {
    name=$1
    shift
    printf '=== %s\n' "$name" >&3
    # Not told directly: to a terminal, programs talk in another way. And complaints
    # come after the output: nothing says where between its bytes they belong.
    "$@" >/tmp/output 2>/tmp/complaints
    code=$?
    cat /tmp/output /tmp/complaints >&3
    printf '\n=== %s ended %s\n' "$name" "$code" >&3
}

# The cgroups of pods. Some go while they are looked at: containers end here, too.
cgroups() {
    find /sys/fs/cgroup -type d -path '*kubepods*' 2>/dev/null
    true
}

# Everything that a node may leave behind, one thing a line.
traces() {
    for link in /sys/class/net/*; do echo "link ${link##*/}"; done
    awk '{print "mount " $5}' /proc/self/mountinfo
    cgroups | sed 's/^/cgroup /'
    for process in /proc/[0-9]*; do
        # Kernel threads have no command line; this script comes and goes.
        command=$(tr '\0' ' ' 2>/dev/null <"$process/cmdline")
        case $command in
        *copepod* | *containerd* | *runc* | *pause* | *demo*) echo "process $command" ;;
        esac
    done
    nft list tables | sed 's/^/table /'
    ip route show table all 2>/dev/null | sed 's/^/route /'
    find /var/lib /var/log /run/copepod /run/netns /etc/cni 2>/dev/null | sed 's/^/file /'
    [ -e /vm/systemd ] && systemctl list-units --all --plain --no-legend '*kubepods*' 'cri-containerd*' |
        awk '{print "unit " $1}'
    true
}

# The values of all cgroups of pods that stay, `path:value`.
limits() {
    find /sys/fs/cgroup/kubepods* \( -name cpu.max -o -name cpu.weight -o -name memory.max -o -name memory.swap.max \
        -o -name memory.oom.group -o -name pids.max \) -exec grep -H '' {} + 2>/dev/null
    true
}

hello() {
    address=$(kubectl get service hello -o 'jsonpath={.spec.clusterIP}') || return
    kubectl exec guaranteed -- demo http-get --count 6 --timeout 20 "http://$address/hostname"
}

# A node has an address; nothing is at the other end of this one, so nobody would find it by itself.
ip link set lo up
ip link add lan0 type dummy
ip address add 192.0.2.1/24 dev lan0
ip link set lan0 up
hostname machine

section kernel uname -r
section cgroup-mounts grep cgroup /proc/mounts
section controllers cat /sys/fs/cgroup/cgroup.controllers
section doctor copepod doctor
section before traces
# On a slow machine a minute may not do; the second call waits for the same node.
section up sh -c 'copepod up --detach --node-ip 192.0.2.1 --config /vm/kubelet.yaml || copepod up --detach --node-ip 192.0.2.1'
section apply kubectl apply -f /vm/pods.yaml -f /vm/hello.yaml
section ready kubectl wait --for=condition=Ready pod/guaranteed pod/burstable pod/besteffort pod/nursery --timeout=120s
section rollout kubectl rollout status deployment/hello --timeout=120s
section events kubectl get events
section pods kubectl get pods -o json
section limits limits
section hello hello
section exec kubectl exec guaranteed -- demo hostname
section logs kubectl logs guaranteed
section stats kubectl get --raw /api/v1/nodes/machine/proxy/stats/summary
# A child of the container's first process asks for too much.
section nursery sh -c '! kubectl exec nursery -- demo alloc 64'
section killed kubectl wait --for=jsonpath={.status.phase}=Failed pod/hog pod/nursery --timeout=120s
section hogs kubectl get pods hog nursery -o json
section delete kubectl delete pod burstable --timeout=120s
section cgroups cgroups
section log tail -n 200 /var/lib/copepod/copepod.log
section down copepod down
section after traces
section end true
sync
poweroff -f
