#!/bin/sh
# Keep what the probe reads on this machine, twice with a second between: sh capture.sh NAME
set -eu
cd "$(dirname "$0")"
take() {
    for file in /etc/os-release /proc/stat /proc/uptime /proc/meminfo /proc/loadavg /proc/mounts /proc/diskstats \
        /proc/net/dev /proc/pressure/cpu /proc/pressure/memory /proc/pressure/io /proc/sys/fs/file-nr \
        /proc/sys/kernel/osrelease /proc/sys/kernel/hostname /proc/sys/kernel/random/boot_id \
        /sys/class/hwmon/hwmon[0-9]*/name /sys/class/hwmon/hwmon[0-9]*/temp*_input \
        /sys/class/hwmon/hwmon[0-9]*/temp*_label /sys/class/thermal/thermal_zone[0-9]*/t[ey][mp][pe]; do
        if [ -r "$file" ]; then
            mkdir -p "$1$(dirname "$file")"
            cat "$file" >"$1$file"
        fi
    done
}
take "$1/earlier"
sleep 1
take "$1/later"
