#!/usr/bin/env bash
# Starts a cluster of one node and shows it at work: the example's pods and six
# requests that they answer in turn. Harmless to run again.
# usage: up.sh COPEPOD [ARGUMENT OF copepod up]...
set -euo pipefail
cd "$(dirname "$0")/.."
. packaging/progress.sh
copepod=$1
shift
# Where there is none on PATH, the one that setup.sh fetched.
PATH=$PATH:$PWD/target/kubectl/1.33

# One request. bash speaks TCP; nothing else needs to be installed for it.
ask() {
    exec 3<>"/dev/tcp/$address/80" || return
    printf 'GET /hostname HTTP/1.0\r\nHost: hello\r\n\r\n' >&3
    sed '1,/^\r$/d' <&3
    exec 3>&-
    echo
}

# Rules follow the pods within milliseconds: not yet when they are just Ready.
three_answer() {
    local names
    for _ in {1..100}; do
        names=$(for _ in 1 2 3; do ask; done | sed '/^$/d' | sort -u)
        [ "$(wc -l <<<"$names")" -eq 3 ] && return
        sleep 0.1
    done
    echo "within ten seconds only these answered: $names"
    return 1
}

told=$("$copepod" up --detach "$@")
printf '%s\n' "$told"
export KUBECONFIG=${told##*KUBECONFIG=}
kubectl apply -f examples/hello.yaml
step "wait for the example's pods" kubectl rollout status deployment/hello --timeout=60s
kubectl get nodes -o wide
kubectl get pods -o wide
address=$(kubectl get service hello -o jsonpath='{.spec.clusterIP}')
step "wait until all three answer" three_answer
echo "six requests to http://$address/:"
for _ in {1..6}; do ask; done | sed '/^$/d'
echo "use it: export KUBECONFIG=$KUBECONFIG; $(command -v kubectl) get pods -A; put copepod on PATH: make install; end it: make down"
