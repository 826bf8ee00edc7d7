#!/usr/bin/env bash
# A real SLURM on one machine, for tests: no systemd, no cgroups, loopback only, every file of it under DIR.
#
#   cluster.sh start DIR                returns when the node takes jobs; again: starts the daemons that are gone
#   cluster.sh install DIR              only what `start` does first: the packages that are missing; the log is in DIR
#   cluster.sh stop DIR                 kills all of it, jobs included; DIR and its logs stay
#   cluster.sh kill DIR NAME [SIGNAL]   one daemon (munged mariadbd slurmdbd slurmctld slurmd); kill -9 by default
#
# Needs root, and Debian's packages or apt-get to install them. Exit status 77: SLURM cannot be had on this machine, the
# reason is the last line; any other: it broke. Settings, read when a DIR is started for the first time:
#
#   SLURM_TEST_ACCT=0      no accounting: neither MariaDB nor slurmdbd, so no sacct
#   SLURM_TEST_CPUS=8      CPUs that the node claims; may be more than there are
#   SLURM_TEST_GPUS=2      fake GPUs that the node claims, at least 1
#   SLURM_TEST_PORT=16817  slurmctld's; slurmd has the next one, then slurmdbd, and srun has PORT+100 to PORT+399
#   SLURM_TEST_OWNER=PID   stop, and remove DIR, when this process has ended
set -euo pipefail

if [ $# -lt 2 ] || [ "${2#/}" = "$2" ]; then
  echo "usage: cluster.sh start|install|stop|kill /ABSOLUTE/DIR [NAME [SIGNAL]]" >&2
  exit 2
fi
DIR=$2 ETC=$2/etc LOG=$2/log RUN=$2/run STATE=$2/state
SCRIPT=$(realpath "${BASH_SOURCE[0]}")
PATH=$PATH:/usr/sbin:/sbin
export SLURM_CONF=$ETC/slurm.conf

die() { echo "cluster.sh: $*" >&2; exit 1; }
cannot() { echo "$*" >&2; exit 77; }

# --- processes: RUN/NAME.pid holds "PID STARTTIME", so that a number in use again is not taken for ours ---------------

# nothing for a zombie: the init of a container may take its time to reap
start_time() { sed 's/^.*) //' "/proc/$1/stat" 2> /dev/null | awk '$1 != "Z" {print $20}'; }

alive() { # NAME
  local pid started
  read -r pid started 2> /dev/null < "$RUN/$1.pid" || return 1
  [ -n "$started" ] && [ "$(start_time "$pid")" = "$started" ]
}

launch() { # NAME COMMAND...
  local name=$1
  shift
  setsid "$@" < /dev/null >> "$LOG/$name.out" 2>&1 &
  echo "$! $(start_time $!)" > "$RUN/$name.pid"
}

wait_for() { # NAME COMMAND...: until the command succeeds, which needs the daemon
  local name=$1 end=$((SECONDS + 60))
  shift
  until "$@" > /dev/null 2>&1; do
    if [ $SECONDS -ge $end ] || ! alive "$name"; then
      tail -n 15 "$LOG/$name.out" >&2 || true
      die "$name did not come up"
    fi
    sleep 0.1
  done
}

kill_daemon() { # NAME [SIGNAL]: returns when it is gone
  local pid started end=$((SECONDS + 30))
  alive "$1" || return 0
  read -r pid started < "$RUN/$1.pid"
  kill -s "${2:-KILL}" "$pid" || true
  while alive "$1"; do
    [ $SECONDS -lt $end ] || die "$1 ($pid) does not end"
    sleep 0.05
  done
}

# --- what it takes ---------------------------------------------------------------------------------------------------

install_packages() {
  local need=() policy=/usr/sbin/policy-rc.d installed=1
  command -v munged > /dev/null || need+=(munge)
  command -v slurmctld > /dev/null || need+=(slurmctld)
  command -v slurmd > /dev/null || need+=(slurmd)
  command -v sbatch > /dev/null || need+=(slurm-client)
  if [ "${SLURM_TEST_ACCT:-1}" != 0 ]; then
    command -v slurmdbd > /dev/null || need+=(slurmdbd)
    command -v mariadb-install-db > /dev/null || need+=(mariadb-server-core)
    command -v eatmydata > /dev/null || need+=(eatmydata)
    command -v mariadb > /dev/null || need+=(mariadb-client-core)
  fi
  [ ${#need[@]} -gt 0 ] || return 0
  command -v apt-get > /dev/null || cannot "SLURM's packages are missing (${need[*]}) and there is no apt-get"

  # A policy-rc.d that answers 101 keeps the packages from starting daemons with the distribution's own settings.
  if [ -e $policy ]; then policy=""; else install -m 755 <(printf '#!/bin/sh\nexit 101\n') $policy; fi
  export DEBIAN_FRONTEND=noninteractive
  apt-get update > "$LOG/apt.log" 2>&1 || true # one source that is gone does not matter, what is missing is told below
  apt-get -o DPkg::Lock::Timeout=300 install -y --no-install-recommends "${need[@]}" >> "$LOG/apt.log" 2>&1 || installed=0
  [ -z "$policy" ] || rm -f $policy
  [ $installed = 1 ] || cannot "apt-get cannot install SLURM's packages: $(grep -m 1 '^E:' "$LOG/apt.log")"
}

# Every daemon and every srun listens on the address of the machine's own name, so that has to be loopback.
own_address() {
  local host address
  host=$(hostname -s)
  address=$(getent ahostsv4 "$host" | awk 'NR == 1 {print $1}') || true
  case $address in
    127.*) echo "$address" ;;
    '') cannot "the name of this machine has no address: add '127.0.0.1 $host' to /etc/hosts" ;;
    *) cannot "the name of this machine is $address, not loopback: put '127.0.0.1 $host' first in /etc/hosts" ;;
  esac
}

configure() {
  local host address port=${SLURM_TEST_PORT:-16817} num_gpus=${SLURM_TEST_GPUS:-2} storage i
  host=$(hostname -s)
  address=$(own_address)

  (umask 077 && head -c 1024 /dev/urandom > "$ETC/munge.key")
  # slurmd wants a device and opens nothing: these have the numbers of /dev/null. With File= CUDA_VISIBLE_DEVICES is set.
  for ((i = 0; i < num_gpus; i++)); do
    rm -f "$DIR/dev/gpu$i"
    mknod -m 666 "$DIR/dev/gpu$i" c 1 3 || cannot "this machine does not let root make device nodes, which fake GPUs are"
  done
  echo "NodeName=$host Name=gpu Type=fake File=$DIR/dev/gpu[0-$((num_gpus - 1))]" > "$ETC/gres.conf"

  storage="AccountingStorageType=accounting_storage/none"
  if [ "${SLURM_TEST_ACCT:-1}" != 0 ]; then
    storage="AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=$address
AccountingStoragePort=$((port + 2))
AccountingStoragePass=$RUN/munge.sock
AccountingStorageTRES=gres/gpu"
    (umask 077 && cat > "$ETC/slurmdbd.conf") << CONF
AuthType=auth/munge
AuthInfo=socket=$RUN/munge.sock
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
DbdHost=$host
DbdAddr=$address
DbdPort=$((port + 2))
SlurmUser=root
PidFile=$STATE/slurmdbd.pid
LogFile=$LOG/slurmdbd.log
StorageType=accounting_storage/mysql
StorageHost=localhost
StorageUser=root
StorageLoc=slurm_acct_db
CONF
  fi

  # FirstJobId comes from the clock: a new cluster does not give out the numbers of an old one, for which a tool that
  # looks for results by number might find a file.
  cat > "$ETC/slurm.conf.part" << CONF
ClusterName=test
SlurmctldHost=$host($address)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket=$RUN/munge.sock,cred_expire=10
CredType=cred/munge
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
SlurmctldPort=$port
SlurmdPort=$((port + 1))
SrunPortRange=$((port + 100))-$((port + 399))
$storage

StateSaveLocation=$STATE/slurmctld
SlurmdSpoolDir=$STATE/slurmd
SlurmctldPidFile=$STATE/slurmctld.pid
SlurmdPidFile=$STATE/slurmd.pid
SlurmctldLogFile=$LOG/slurmctld.log
SlurmdLogFile=$LOG/slurmd.log

# nothing that needs cgroups; pgid also ends what outlives its shell
ProctrackType=proctrack/pgid
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/linux
MpiDefault=none
MailProg=/bin/true

# quick reactions; a requeued job waits for cred_expire above
FirstJobId=$(($(date +%s) % 50000000 + 1))
KillWait=5
SlurmctldTimeout=30
SlurmdTimeout=30
ReturnToService=1
SchedulerParameters=batch_sched_delay=0,sched_interval=5,bf_interval=5

# CPUs, memory and GPUs are handed out and waited for, but not enforced
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
DefMemPerCPU=256
GresTypes=gpu
SlurmdParameters=config_overrides

# a job of a lower PriorityTier is requeued for one of a higher; its signal comes first
PriorityType=priority/basic
JobRequeue=1
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SlurmctldParameters=preempt_send_user_signal

NodeName=$host NodeAddr=$address CPUs=${SLURM_TEST_CPUS:-8} RealMemory=65536 Gres=gpu:fake:$num_gpus
PartitionName=DEFAULT Nodes=$host MaxTime=1-00:00:00 DefaultTime=10
PartitionName=main Default=YES PriorityTier=10 PreemptMode=REQUEUE GraceTime=20
PartitionName=high PriorityTier=100 PreemptMode=OFF
CONF
  mv "$ETC/slurm.conf.part" "$ETC/slurm.conf"
}

# --- daemons ---------------------------------------------------------------------------------------------------------

start_munged() {
  alive munged && return
  rm -f "$RUN"/munge.sock*
  launch munged munged --foreground --key-file="$ETC/munge.key" --socket="$RUN/munge.sock" \
    --pid-file="$STATE/munged.pid" --log-file="$LOG/munged.log" --seed-file="$STATE/munged.seed" --num-threads=2
}

start_mariadbd() {
  alive mariadbd && return
  # Not the distribution's my.cnf; a socket only; no fsync, which is most of its start.
  local options=(--no-defaults --user=root --datadir="$STATE/mariadb" --innodb-buffer-pool-size=64M
    --innodb-log-file-size=16M --innodb-flush-log-at-trx-commit=0 --innodb-lock-wait-timeout=900)
  if [ ! -e "$STATE/mariadb.ready" ]; then
    eatmydata mariadb-install-db "${options[@]}" --auth-root-authentication-method=socket --auth-root-socket-user=root \
      --skip-test-db > "$LOG/mariadb-install.out" 2>&1 || die "mariadb-install-db: $(tail "$LOG/mariadb-install.out")"
    touch "$STATE/mariadb.ready"
  fi
  rm -f "$RUN/mysql.sock"
  launch mariadbd eatmydata mariadbd "${options[@]}" --skip-networking --socket="$RUN/mysql.sock" --pid-file="$STATE/mariadbd.pid"
}

start_accounting() { # slurmctld enters the cluster into the database
  alive mariadbd && alive slurmdbd && return
  start_mariadbd
  wait_for mariadbd mariadb --no-defaults --socket="$RUN/mysql.sock" --execute="select 1"
  # slurmdbd.conf has no setting for the socket, MariaDB's client library has this variable.
  alive slurmdbd || launch slurmdbd env MYSQL_UNIX_PORT="$RUN/mysql.sock" slurmdbd -D
  wait_for slurmdbd sacctmgr --noheader show cluster
}

# slurmd listens (looked up: a connection would be logged as a broken message) and the controller would give it work
node_takes_jobs() {
  local port state
  port=$(sed -n 's/^SlurmdPort=//p' "$ETC/slurm.conf")
  grep -q "^ *[0-9]*: [0-9A-F]*:$(printf %04X "$port") [0-9A-F:]* 0A " /proc/net/tcp || return 1
  state=$(sinfo --noheader --partition=main --format=%T)
  case $state in
    idle | mixed | allocated | completing | planned) ;;
    down | drain*) scontrol update nodename="$(hostname -s)" state=resume && return 1 ;;
    *) return 1 ;;
  esac
}

install_missing() {
  [ "$(id -u)" = 0 ] || cannot "SLURM for tests needs root"
  mkdir -p "$LOG"
  install_packages
}

start() {
  [ "$(id -u)" = 0 ] || cannot "SLURM for tests needs root"
  umask 022
  mkdir -p "$DIR" && chmod 755 "$DIR" # munged insists
  mkdir -p "$ETC" "$LOG" "$RUN" "$DIR/dev" "$STATE"/{slurmctld,slurmd,mariadb}
  if [ ! -e "$ETC/slurm.conf" ]; then
    install_packages
    configure
    [ -z "${SLURM_TEST_OWNER:-}" ] || launch watch "$SCRIPT" watch "$DIR" "$SLURM_TEST_OWNER"
  fi
  start_munged
  wait_for munged sh -c "munge -n -S '$RUN/munge.sock' | unmunge -S '$RUN/munge.sock'"
  if [ -e "$ETC/slurmdbd.conf" ]; then start_accounting; fi
  alive slurmctld || launch slurmctld slurmctld -D
  wait_for slurmctld scontrol ping
  alive slurmd || launch slurmd slurmd -D -N "$(hostname -s)"
  wait_for slurmd node_takes_jobs
  echo "export SLURM_CONF=$SLURM_CONF"
}

# Jobs outlive slurmd, and the controller that could end them may be gone: each slurmstepd that has this slurmd's log open,
# what descends from it, and what has a job's number and this cluster's SLURM_CONF in its environment.
job_processes() {
  local pid steps=""
  for pid in $(grep -lx slurmstepd /proc/[0-9]*/comm | cut -d/ -f3); do
    [ -z "$(find "/proc/$pid/fd" -lname "$LOG/slurmd.log*")" ] || steps+=" $pid"
  done
  sed -n 's/^\([0-9]*\) (.*) [^Z] \([0-9]*\) .*/\1 \2/p' /proc/[0-9]*/stat | awk -v steps="$steps" '
    BEGIN { for (i = split(steps, list); i > 0; i--) job[list[i]] }
    { parent[$1] = $2 }
    END { for (pid in parent) { up = pid; while (up in parent && !(up in job)) up = parent[up]; if (up in job) print pid } }'
  grep -lzFx "SLURM_CONF=$SLURM_CONF" /proc/[0-9]*/environ | xargs -r grep -lz '^SLURM_JOB_ID=' | cut -d/ -f3
} 2> /dev/null

stop() {
  local name pids end=$((SECONDS + 30))
  for name in slurmd slurmctld; do kill_daemon $name; done
  while pids=$(job_processes || true) && [ -n "$pids" ]; do
    [ $SECONDS -lt $end ] || die "jobs do not end: $pids"
    xargs kill -s KILL <<< "$pids" 2> /dev/null || true
    sleep 0.05
  done
  for name in slurmdbd mariadbd munged; do kill_daemon $name; done
  # the group: it sleeps in a child
  if alive watch; then kill -s KILL -- "-$(cut -d" " -f1 "$RUN/watch.pid")"; fi
}

watch() { # PID
  while kill -0 "$1" 2> /dev/null; do sleep 1; done
  rm "$RUN/watch.pid"
  stop
  rm -rf "$DIR"
}

case $1 in
  start) start ;;
  install) install_missing ;;
  stop) stop ;;
  kill) kill_daemon "${3:?which daemon?}" "${4:-KILL}" ;;
  watch) watch "$3" ;;
  *) die "start, install, stop or kill, not $1" ;;
esac
