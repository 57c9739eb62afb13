#!/usr/bin/env bash
# A real SLURM on this one machine, without systemd: munged, slurmctld, slurmd, and a stand-in for a GPU.
#
#   tests/slurm/slurm.sh start FOLDER    install if needed (Debian, root; status 77 if that fails), configure, start
#   tests/slurm/slurm.sh node FOLDER     start slurmd again after it was killed
#   tests/slurm/slurm.sh stop FOLDER
set -euo pipefail
command=$1
folder=$2
export SLURM_CONF=$folder/slurm.conf

install() {
    command -v slurmctld >/dev/null && command -v munged >/dev/null && return
    export DEBIAN_FRONTEND=noninteractive
    local apt=(apt-get -qq -o DPkg::Lock::Timeout=300)
    { "${apt[@]}" update && "${apt[@]}" install -y --no-install-recommends slurm-wlm munge >/dev/null; } || exit 77
}

configure() {
    mkdir -p "$folder"/{state,spool,log}
    local cpus memory
    cpus=$(nproc)
    memory=$(awk '/MemTotal/ {print int($2 / 1024 * 0.9)}' /proc/meminfo)
    cat >"$SLURM_CONF" <<CONF
ClusterName=test
SlurmctldHost=$(hostname -s)(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool
SlurmctldLogFile=$folder/log/slurmctld.log
SlurmdLogFile=$folder/log/slurmd.log
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd.pid
ReturnToService=2
SlurmdTimeout=10
MinJobAge=300
KillWait=60
SchedulerParameters=sched_interval=1,batch_sched_delay=0,bf_interval=1
MpiDefault=none
GresTypes=gpu
NodeName=localhost NodeHostname=$(hostname -s) NodeAddr=127.0.0.1 CPUs=$cpus RealMemory=$memory Gres=gpu:h200:1 State=UNKNOWN
PartitionName=gpu Nodes=localhost Default=YES MaxTime=INFINITE State=UP
CONF
    printf 'Name=gpu Type=h200 File=/dev/null\n' >"$folder/gres.conf"
    # Commands inside jobs do not see SLURM_CONF: the plugin clears SLURM's variables before it submits.
    mkdir -p /etc/slurm
    for name in slurm gres; do
        if [ -e "/etc/slurm/$name.conf" ] && [ ! -L "/etc/slurm/$name.conf" ]; then
            echo "/etc/slurm/$name.conf belongs to a SLURM of this machine; it is left alone" >&2
            exit 1
        fi
        ln -sfn "$folder/$name.conf" "/etc/slurm/$name.conf"
    done
}

case $command in
start)
    install
    configure
    mkdir -p /run/munge
    chown munge: /run/munge
    munge --no-input >/dev/null 2>&1 || { runuser -u munge -- munged && touch "$folder/munged"; }
    slurmctld
    slurmd -N localhost
    for _ in $(seq 60); do
        sinfo --noheader --format=%T 2>/dev/null | grep -q idle && exit 0
        sleep 0.5
    done
    tail "$folder"/log/*.log
    exit 1
    ;;
node) slurmd -N localhost ;;
stop)
    scancel --user=root 2>/dev/null || true
    for name in slurmd slurmctld; do
        [ -f "$folder/$name.pid" ] && kill "$(cat "$folder/$name.pid")" 2>/dev/null || true
    done
    if [ -e "$folder/munged" ]; then munged --stop >/dev/null; fi
    rm -f /etc/slurm/slurm.conf /etc/slurm/gres.conf
    ;;
esac
