#!/bin/bash
# A Slurm cluster of a few pretended nodes on this one machine: for tests and for trying the launcher.
#
#   dev_cluster.sh install           install Slurm's daemons from Debian's packages (starts nothing)
#   dev_cluster.sh start             start it; returns when every node is idle
#   dev_cluster.sh env               shell lines a client needs:  eval "$(dev_cluster.sh env)"
#   dev_cluster.sh status            nodes, queue and daemons
#   dev_cluster.sh kill-node NAME    power loss: every process of the node is killed at once
#   dev_cluster.sh start-node NAME   boot that node again
#   dev_cluster.sh stop              cancel all jobs and end every daemon
#
# Settings, by environment:
#   CLUSTER_DIR   folder for every file of the cluster; at most 80 characters (unix sockets lie in it).
#                 Needed by every command except install.
#   NODES=2 CPUS=4 MEM_MB=8000 GPUS=0   number of nodes, and what each pretends to have
#   REQUEUE_WAIT=5                      seconds before a requeued job may start again (Slurm's default: 120)
#
# Needs root (the nodes are namespaces) and Linux. Each node has its own host name, process tree and /etc/hosts; the
# network and the file system are this machine's. Partitions: `low` (default; its jobs are requeued when `high` needs
# their nodes) and `high`. There is no accounting database: a small `sacct`, put on PATH by `env`, answers the one
# question that submitit asks.
set -euo pipefail
DIR=${CLUSTER_DIR:-}
NODES=${NODES:-2} CPUS=${CPUS:-4} MEM_MB=${MEM_MB:-8000} GPUS=${GPUS:-0} REQUEUE_WAIT=${REQUEUE_WAIT:-5}
CONF=$DIR/etc/slurm.conf
export SLURM_CONF=$CONF PATH=$PATH:/usr/sbin:/sbin

log() { echo "dev_cluster: $*" >&2; }

fail() { log "$*"; exit 1; }

# A process that ended but was not reaped still has an entry in /proc: state Z does not count as running.
running() { [ -r "/proc/$1/status" ] && ! grep -q '^State:[[:space:]]*Z' "/proc/$1/status" 2>/dev/null; }

# until_true SECONDS COMMAND...: poll until the command succeeds.
until_true() {
  local deadline=$((SECONDS + $1)); shift
  until "$@" >/dev/null 2>&1; do
    [ $SECONDS -lt $deadline ] || return 1
    sleep 0.1
  done
}

gone() { ! running "$1"; }

# end_daemon PIDFILE: SIGTERM, then SIGKILL after 5 seconds.
end_daemon() {
  local pid
  [ -s "$1" ] || return 0
  pid=$(cat "$1")
  if running "$pid"; then
    kill "$pid" 2>/dev/null || true
    until_true 5 gone "$pid" || kill -9 "$pid" 2>/dev/null || true
  fi
  rm -f "$1"
}

install() {
  export DEBIAN_FRONTEND=noninteractive
  apt-get update -q || log "apt-get update failed: trying with the package lists that are here"
  apt-get install -y -q --no-install-recommends slurmctld slurmd slurm-client munge
}

node_names() { seq -f 'node%.0f' "$NODES"; }

free_ports() { # free_ports COUNT: that many unused TCP ports, one per line
  python3 -c "
import socket
sockets = [socket.socket() for _ in range($1)]
for s in sockets:
    s.bind(('127.0.0.1', 0))
    print(s.getsockname()[1])"
}

write_slurm_conf() {
  local host node ports gres=""
  host=$(hostname -s)
  mapfile -t ports < <(free_ports $((NODES + 1)))
  [ "$GPUS" -eq 0 ] || gres="Gres=gpu:$GPUS"
  cat >"$CONF" <<CONFIG
ClusterName=dev
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=${ports[NODES]}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket=$DIR/run/munge.sock,cred_expire=$REQUEUE_WAIT
StateSaveLocation=$DIR/state
SlurmdSpoolDir=$DIR/spool/%n
SlurmctldPidFile=$DIR/run/slurmctld.pid
SlurmdPidFile=$DIR/run/slurmd.%n.pid
SlurmctldLogFile=$DIR/log/slurmctld.log
SlurmdLogFile=$DIR/log/slurmd.%n.log
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SlurmdParameters=config_overrides
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=2,sched_min_interval=0,bf_interval=2,batch_sched_delay=0
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
JobRequeue=1
ReturnToService=2
SlurmctldTimeout=10
SlurmdTimeout=10
BatchStartTimeout=10
KillWait=5
MinJobAge=600
MessageTimeout=5
TCPTimeout=2
CONFIG
  echo "127.0.0.1 localhost $host" >"$DIR/etc/hosts"
  local i=0
  for node in $(node_names); do
    echo "127.0.0.1 $node" >>"$DIR/etc/hosts"
    echo "NodeName=$node NodeAddr=127.0.0.1 Port=${ports[i]} CPUs=$CPUS RealMemory=$MEM_MB $gres" >>"$CONF"
    i=$((i + 1))
  done
  if [ "$GPUS" -gt 0 ]; then # Slurm only counts the device files, so any existing ones will do
    echo "GresTypes=gpu" >>"$CONF"
    echo "Name=gpu File=/dev/tty[1-$GPUS]" >"$DIR/etc/gres.conf"
  fi
  cat >>"$CONF" <<CONFIG
PartitionName=low Nodes=ALL Default=YES DefaultTime=10 MaxTime=INFINITE PriorityTier=1 PreemptMode=REQUEUE GraceTime=20
PartitionName=high Nodes=ALL DefaultTime=10 MaxTime=INFINITE PriorityTier=10 PreemptMode=OFF
CONFIG
}

write_sacct() { # the job table of slurmctld in the form of `sacct -o JobID,State,NodeList --parsable2 -j ID ...`
  cat >"$DIR/bin/sacct" <<'SACCT'
#!/bin/bash
echo "JobID|State|NodeList"
while [ $# -gt 0 ]; do
  if [ "$1" = -j ]; then
    squeue --noheader --states=all --jobs="$2" --format='%i|%T|%N' 2>/dev/null
    shift
  fi
  shift
done
exit 0
SACCT
  chmod 755 "$DIR/bin/sacct"
}

start_munge() {
  (umask 077 && head -c 1024 /dev/urandom >"$DIR/etc/munge.key")
  munged --key-file="$DIR/etc/munge.key" --socket="$DIR/run/munge.sock" --pid-file="$DIR/run/munged.pid" \
    --log-file="$DIR/log/munged.log" --seed-file="$DIR/state/munge.seed"
}

start_node() {
  local pidfile=$DIR/run/$1.pid
  ! { [ -s "$pidfile" ] && running "$(cat "$pidfile")"; } || fail "$1 is up already"
  mkdir -p "$DIR/spool/$1"
  # bash is process 1 of the node: it reaps orphans, and when `unshare` dies it takes the whole node with it.
  NODE=$1 HOSTS=$DIR/etc/hosts setsid unshare --mount --uts --pid --fork --kill-child --mount-proc bash -c '
    hostname "$NODE"
    mount --bind "$HOSTS" /etc/hosts
    slurmd -D -N "$NODE" -f "$SLURM_CONF" &
    while true; do sleep 3600 & wait $!; done' </dev/null >>"$DIR/log/$1.out" 2>&1 &
  echo $! >"$pidfile"
  disown
}

kill_node() {
  local pidfile=$DIR/run/$1.pid pid
  [ -s "$pidfile" ] || fail "$1 is not up"
  pid=$(cat "$pidfile")
  kill -9 "$pid" 2>/dev/null || true
  until_true 5 gone "$pid" || fail "$1 (process $pid) does not end"
  rm -f "$pidfile" "$DIR/run/slurmd.$1.pid"
}

all_idle() { [ "$(sinfo --noheader --Node --partition=low --states=idle --format=%N | wc -l)" -eq "$NODES" ]; }

start() {
  [ "$(id -u)" -eq 0 ] || fail "needs root: the nodes are namespaces"
  command -v slurmctld >/dev/null && command -v munged >/dev/null || fail "Slurm is not here: run $0 install"
  [ ${#DIR} -le 80 ] || fail "CLUSTER_DIR has ${#DIR} characters; unix sockets allow about 80"
  [ ! -e "$DIR/run/munged.pid" ] || fail "a cluster in $DIR is up already, or was not stopped: run $0 stop"
  mkdir -p "$DIR"/{bin,etc,log,run,spool,state}
  chmod 755 "$DIR" "$DIR/run"
  write_slurm_conf
  write_sacct
  echo "NODES=$NODES" >"$DIR/etc/settings"
  trap stop ERR
  start_munge
  slurmctld -f "$CONF"
  local node
  for node in $(node_names); do start_node "$node"; done
  until_true 30 all_idle || { stop; fail "the nodes did not become idle; logs are in $DIR/log"; }
  trap - ERR
  log "$NODES nodes are idle"
}

stop() {
  local node
  timeout 5 scancel --user="$(id -un)" >/dev/null 2>&1 || true
  for node in $(node_names); do
    [ ! -s "$DIR/run/$node.pid" ] || kill_node "$node"
  done
  end_daemon "$DIR/run/slurmctld.pid"
  end_daemon "$DIR/run/munged.pid"
  log "stopped"
}

status() {
  local pidfile pid
  sinfo --Node --long
  squeue
  for pidfile in "$DIR"/run/{munged,slurmctld,node*}.pid; do
    pid=$(cat "$pidfile" 2>/dev/null) && running "$pid" && echo "$(basename "$pidfile" .pid): process $pid" || true
  done
}

case ${1:-} in
  start | stop | status | env | kill-node | start-node)
    [ -n "$DIR" ] || fail "set CLUSTER_DIR to a folder for the cluster"
    [ ! -r "$DIR/etc/settings" ] || [ "$1" = start ] || . "$DIR/etc/settings" ;;
esac
case ${1:-} in
  install) install ;;
  start | stop | status) "$1" ;;
  env) echo "export SLURM_CONF='$CONF' PATH='$DIR/bin':\"\$PATH\"" ;;
  kill-node) kill_node "${2:?name the node}" ;;
  start-node) start_node "${2:?name the node}" ;;
  *) sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "$0"; exit 2 ;;
esac
