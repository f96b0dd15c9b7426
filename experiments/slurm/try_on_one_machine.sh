#!/bin/bash
# A real SLURM on this one machine, and on it what clusters are used for: a sweep of three jobs through Hydra's submitit
# launcher, an array of two splits, and an expansion by two tasks under DDP; then compares the last two with one process.
# Needs Debian, root and `apt-get install slurm-wlm munge`, `pip install -e '.[slurm]'`; 2 CPUs, some minutes.
#   PYTHON=.venv/bin/python experiments/slurm/try_on_one_machine.sh
set -eu
cd "$(dirname "$0")/../.."
export PYTHON=${PYTHON:-.venv/bin/python} OMP_NUM_THREADS=1
place=$(mktemp -d /tmp/distdiff-slurm-XXXX)
host=$(hostname -s)

if pgrep -x slurmd > /dev/null; then
    echo "a SLURM runs here already: this is for a machine without one"
    exit 1
fi
mkdir -p /run/munge "${place}/state" "${place}/spool"
chown munge /run/munge
[ -f /etc/munge/munge.key ] || mungekey --create
pgrep -x munged > /dev/null || su -s /bin/sh munge -c munged
export SLURM_CONF=${place}/slurm.conf
cat > "${SLURM_CONF}" << CONF
ClusterName=one
SlurmctldHost=${host}
SlurmUser=root
AuthType=auth/munge
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
StateSaveLocation=${place}/state
SlurmdSpoolDir=${place}/spool
SlurmctldLogFile=${place}/slurmctld.log
SlurmdLogFile=${place}/slurmd.log
SlurmctldPidFile=${place}/slurmctld.pid
SlurmdPidFile=${place}/slurmd.pid
ReturnToService=2
MpiDefault=none
NodeName=${host} CPUs=2 State=UNKNOWN
PartitionName=all Nodes=${host} Default=YES MaxTime=INFINITE State=UP
CONF
end() { kill $(cat "${place}/slurmd.pid" "${place}/slurmctld.pid"); }
slurmctld -c -f "${SLURM_CONF}"
slurmd -f "${SLURM_CONF}"
trap end EXIT
for _ in $(seq 30); do sinfo -h -o %T 2> /dev/null | grep -q idle && break; sleep 1; done
sinfo

small="guidance=direct generator.num_steps=8 encoder.guide.steps=20 expansion.factor=4 logger=none paths.output_dir=${place}/outputs"

echo "== one process"
"${PYTHON}" experiments/expand.py ${small} expansion.output_dir="${place}/whole"

echo "== a sweep of three jobs, through Hydra's submitit launcher"
"${PYTHON}" experiments/expand.py -m hydra/launcher=cluster hydra.launcher.cpus_per_task=1 \
    guidance.rho=0.1,0.3,1 ${small} 2>&1 | grep -vi "sacct\|accounting" || true  # there is none here
ls -d "${place}"/outputs/expand/multirun/*/[0-9] "${place}"/outputs/expanded/*

echo "== a sweep of two jobs of two tasks each, DDP in each"
"${PYTHON}" experiments/expand.py -m hydra/launcher=cluster hydra.launcher.cpus_per_task=1 \
    hydra.launcher.tasks_per_node=2 trainer=ddp_cpu guidance.rho=2,3 ${small} 2>&1 | grep -vi "sacct\|accounting" || true
cat "${place}"/outputs/expand/multirun/*/.submitit/*/*_0_log.out | grep images

echo "== an array of two splits"
sbatch --wait --array=0-1 --gpus=0 --cpus-per-task=1 --output="${place}/array-%a.log" \
    experiments/slurm/expand_array.sbatch ${small} trainer=cpu expansion.output_dir="${place}/array"
cat "${place}"/array-*.log

echo "== two tasks under DDP"
TRAINER=ddp_cpu sbatch --wait --nodes=1 --ntasks-per-node=2 --gpus-per-node=0 --cpus-per-task=1 \
    --output="${place}/ddp.log" experiments/slurm/expand_ddp.sbatch ${small} expansion.output_dir="${place}/ddp"
cat "${place}/ddp.log"

echo "== SIGUSR1 on the way, as before a time limit: the batch is finished, the job requeued, and it goes on"
job=$(TRAINER=ddp_cpu sbatch --parsable --nodes=1 --ntasks-per-node=2 --gpus-per-node=0 --cpus-per-task=1 \
    --output="${place}/requeued.log" experiments/slurm/expand_ddp.sbatch ${small} expansion.factor=30 \
    expansion.batch_size=4 expansion.output_dir="${place}/requeued")
until [ "$(ls "${place}"/requeued/*/*.png 2> /dev/null | wc -l)" -gt 20 ]; do sleep 0.2; done
scancel --signal=USR1 "${job}"
sleep 5
echo "$(ls "${place}"/requeued/*/*.png | wc -l) of 600 images when it was stopped"
scontrol update JobId="${job}" StartTime=now 2> /dev/null || true  # a requeued job would wait for two minutes
while squeue -h -j "${job}" 2> /dev/null | grep -q .; do sleep 1; done
cat "${place}/requeued.log"

echo "== the same datasets?"
"${PYTHON}" experiments/studies/compare_expanded.py "${place}/whole" "${place}/array" "${place}/ddp"
