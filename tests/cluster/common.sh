# Sourced by `up` and `down`: where the cluster lives, which processes are its own, how it is taken away.

root=$(realpath -m "${CORRFLOW_CLUSTER_ROOT:-/tmp/corrflow-cluster}")
export SLURM_CONF=$root/etc/slurm.conf
daemon_mark=CORRFLOW_CLUSTER_DAEMON=$root  # in the environment of each daemon: pid files are missing after half a start
hosts_mark="# corrflow-cluster"

fail() {  # MESSAGE [EXIT CODE]
    echo "${0##*/}: $1" >&2
    exit "${2:-1}"
}

lock() {  # one `up` or `down` at a time; daemons must not inherit descriptor 9, or they would hold it
    exec 9<"$root/.cluster"
    flock -w 90 9 || fail "another up or down is at work"
}

pids() {  # the daemons, and what runs inside a job; a shell that only exports SLURM_CONF is spared
    {
        grep -slzxF "$daemon_mark" /proc/[0-9]*/environ || true
        grep -slzxF "SLURM_CONF=$SLURM_CONF" /proc/[0-9]*/environ | xargs -r grep -slz '^SLURM_JOB_ID=' || true
    } | cut -d/ -f3 | sort -u
}

# The state goes too, so the next cluster starts from nothing and SIGKILL does no harm. The logs stay to be read.
tear_down() {
    local left tries=50
    while left=$(pids); [[ $left ]]; do
        ((tries--)) || fail "processes that don't die: ${left//$'\n'/ }"
        kill -9 $left 2>/dev/null || true
        sleep 0.1
    done
    if grep -q "$hosts_mark" /etc/hosts; then
        local others
        others=$(grep -v "$hosts_mark" /etc/hosts; echo .)  # the dot keeps trailing empty lines
        printf %s "${others%.}" >/etc/hosts  # written in place: in a container it is a mount, which can't be replaced
    fi
    [[ ! -e $root/.cluster ]] || rm -rf "$root/etc" "$root/state"
}
