# Outlives the process that started it, and then takes one server and its directory away.
# Arguments: directory, signal that stops the server at once, optional container.
# Each line on standard input is "pid start-time" of the server that runs now, or "0 0" for none;
# the end of input means that the parent is gone, however it went.
directory=$1 signal=$2 container=$3
trap '' INT TERM HUP
pid=0 started=0
while read -r next_pid next_started; do pid=$next_pid started=$next_started; done

# A pid alone could by now belong to somebody else; with the start time it cannot.
alive() {
    stat=$(cat "/proc/$pid/stat" 2>/dev/null) || return 1
    set -- "$started" ${stat##*) }
    [ "$2" != Z ] && [ "${21}" = "$1" ]
}

if [ "$pid" != 0 ] && alive; then
    kill -s CONT -- "-$pid"
    kill -s "$signal" -- "-$pid"
    turn=0
    while alive && [ "$turn" -lt 50 ]; do sleep 0.1; turn=$((turn + 1)); done
    kill -s KILL -- "-$pid"
fi 2>/dev/null

# What left the process group (each Postgres backend does) still works inside the directory, and so
# does initdb, which is never watched.
kill_strays() {
    strays=0
    for entry in /proc/[0-9]*; do
        case $(readlink "$entry/cwd") in "$directory" | "$directory"/*) ;; *) continue ;; esac
        case $(cat "$entry/comm") in initdb | postgres | java) ;; *) continue ;; esac
        kill -s KILL "${entry#/proc/}"
        strays=$((strays + 1))
    done 2>/dev/null
    [ "$strays" -gt 0 ]
}
turn=0
while kill_strays && [ "$turn" -lt 50 ]; do sleep 0.1; turn=$((turn + 1)); done

# A killed postmaster leaves its interlock segment; its id is the last number of line 7.
if [ -f "$directory/data/postmaster.pid" ]; then
    segment=$(sed -n '7s/.* //p' "$directory/data/postmaster.pid")
    [ -z "$segment" ] || ipcrm -m "$segment" 2>/dev/null
fi
[ -z "$container" ] || docker rm -f -v "$container" >/dev/null 2>&1
rm -rf -- "$directory"
