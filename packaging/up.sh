#!/usr/bin/env bash
# Starts a cluster of one node and shows it at work: the example's pods and six
# requests that they answer in turn.
# usage: up.sh COPEPOD
set -euo pipefail
cd "$(dirname "$0")/.."
copepod=$1
"$copepod" up --detach
KUBECONFIG=$(mktemp)
export KUBECONFIG
trap 'rm -f "$KUBECONFIG"' EXIT
"$copepod" kubeconfig >"$KUBECONFIG"
kubectl apply -f examples/hello.yaml
kubectl rollout status deployment/hello --timeout=60s
kubectl get nodes -o wide
kubectl get pods -o wide
address=$(kubectl get service hello -o jsonpath='{.spec.clusterIP}')
echo "six requests to http://$address/:"
for _ in 1 2 3 4 5 6; do
    # bash speaks TCP; nothing else needs to be installed for a request.
    exec 3<>"/dev/tcp/$address/80"
    printf 'GET /hostname HTTP/1.0\r\nHost: hello\r\n\r\n' >&3
    sed '1,/^\r$/d' <&3
    exec 3>&-
    echo
done | sed '/^$/d'
echo "use it: export KUBECONFIG=/var/lib/copepod/admin.kubeconfig; end it: make down"
