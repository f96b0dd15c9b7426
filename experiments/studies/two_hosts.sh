#!/bin/bash
# An expansion on two "hosts": network namespaces of this machine, joined by a cable, with a rank each
# (trainer.num_nodes=2), started by hand as on two machines that share a file system. Then the same by one process.
# Needs root and `ip` (iproute2).
#   PYTHON=.venv/bin/python experiments/studies/two_hosts.sh
set -eu
cd "$(dirname "$0")/../.."
python=${PYTHON:-.venv/bin/python}
place=$(mktemp -d /tmp/distdiff-hosts-XXXX)
end() { ip netns del distdiff0 2> /dev/null; ip netns del distdiff1 2> /dev/null; rm -rf "${place}"; }
trap end EXIT

ip netns add distdiff0
ip netns add distdiff1
ip link add cable0 netns distdiff0 type veth peer name cable1 netns distdiff1
for host in 0 1; do
    ip -n "distdiff${host}" addr add "10.77.0.$((host + 1))/24" dev "cable${host}"
    ip -n "distdiff${host}" link set "cable${host}" up
    ip -n "distdiff${host}" link set lo up
done

small="guidance=direct generator.num_steps=8 encoder.guide.steps=20 expansion.factor=4 logger=none paths.output_dir=${place}/outputs"
export OMP_NUM_THREADS=1 MASTER_ADDR=10.77.0.1 MASTER_PORT=29511
for host in 1 0; do
    NODE_RANK=${host} GLOO_SOCKET_IFNAME=cable${host} ip netns exec "distdiff${host}" "${python}" experiments/expand.py \
        trainer=ddp_cpu trainer.devices=1 trainer.num_nodes=2 ${small} expansion.output_dir="${place}/two" &
done
wait
echo "run directories: $(ls "${place}/outputs/expand")"
"${python}" experiments/expand.py ${small} expansion.output_dir="${place}/one"
"${python}" experiments/studies/compare_expanded.py "${place}/one" "${place}/two"
