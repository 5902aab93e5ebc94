# The probe: answers each line on its standard input with one line of raw counters from /proc.
#
# The console is the clock. A tick is a line of letters; `t` alone asks for what changes every second, and further
# letters ask for more: m (pressure, slow gauges, the own cost), c (pressure, each cpu), p (top processes),
# f (filesystems), h (hello).
# docs/reference/probe-protocol.md describes the lines, and collect/lines.py reads them.
#
# Rules for whoever changes this program:
# - It runs unchanged in mawk, gawk and BusyBox awk, and tests/collect/test_probe.py runs it in all three.
# - It is sent through an unknown login shell in single quotes, joined to one line. So: no single quote, no
#   backslash, no exclamation mark except in the operator, and a semicolon after every statement.
# - Counters are printed as the text that was read. mawk would round them as numbers.
# - Nothing is forked on a plain tick, and nothing is ever written to disk.

function quoted(s,    i, n, c, out) {
    if (s ~ /^[-A-Za-z0-9_.:@+ ()]*$/) return QUOTE s QUOTE;
    n = length(s);
    if (n > 512) n = 512;
    for (i = 1; i <= n; i++) {
        c = substr(s, i, 1);
        out = out ((c in ESCAPED) ? ESCAPED[c] : c);
    }
    return QUOTE out QUOTE;
}

function number(s) {
    return (s ~ /^[0-9]+$/ && (s ~ /^0./) == 0) ? s : "null";
}

function first_line(path,    line) {
    line = "";
    if ((getline line < path) <= 0) line = "";
    close(path);
    return line;
}

# A value of os-release or cpuinfo: the text after the first separator, without quotes.
function value_of(line, separator) {
    line = substr(line, index(line, separator) + 1);
    gsub(QUOTE, "", line);
    sub(/^[ ]+/, "", line);
    return line;
}

function has(path,    line, found) {
    found = (getline line < path) > 0;
    close(path);
    return found;
}

function hello(    line, name, cpus, btime, uptime, sections, section, i, n, part) {
    name = "Linux";
    while ((getline line < OS_RELEASE) > 0) if (line ~ /^PRETTY_NAME=/) name = value_of(line, "=");
    close(OS_RELEASE);
    cpus = 0;
    btime = "null";
    while ((getline line < STAT) > 0) {
        if (line ~ /^cpu[0-9]/) cpus++;
        if (line ~ /^btime [0-9]+$/) btime = substr(line, 7);
    }
    close(STAT);
    split(first_line(UPTIME), part, " ");
    uptime = part[1] ~ /^[0-9]+[.][0-9]+$/ ? part[1] : "null";
    n = split("cpu memory pressure disks interfaces", section, " ");
    sections = "";
    for (i = 1; i <= n; i++) if (has(SECTION[section[i]])) sections = sections (sections == "" ? "" : ",") QUOTE section[i] QUOTE;
    split(first_line(MEMINFO), part, " ");
    printf "%s", "[" QUOTE "hello" QUOTE ",1," QUOTE AWK QUOTE ",[" sections "]," btime "," uptime "," quoted(name) ","
        quoted(first_line(KERNEL "osrelease")) "," quoted(MACHINE) "," quoted(first_line(KERNEL "hostname")) ","
        cpus "," number(part[2]) "," quoted(first_line(KERNEL "random/boot_id")) "]" NEWLINE;
    fflush();
}

# Sensors are found once. Names and values are read with the slow gauges only: some drivers take milliseconds.
function find_sensors(    i, j, path, name) {
    SENSORS = 0;
    for (i = 0; i < 16; i++) {
        path = ROOT "/sys/class/hwmon/hwmon" i "/";
        if (has(path "name") == 0) continue;
        name = first_line(path "name");
        for (j = 1; j <= 16; j++) {
            if (has(path "temp" j "_input") == 0) continue;
            add_sensor(path "temp" j "_input", name " " (has(path "temp" j "_label") ? first_line(path "temp" j "_label") : "temp" j));
        }
    }
    for (i = 0; i < 16 && SENSORS == 0; i++) {
        path = ROOT "/sys/class/thermal/thermal_zone" i "/";
        if (has(path "temp")) add_sensor(path "temp", first_line(path "type") " " i);
    }
}

function add_sensor(path, name) {
    if (SENSORS >= 32) return;
    SENSORS++;
    SENSOR_PATH[SENSORS] = path;
    SENSOR_NAME[SENSORS] = quoted(name);
}

function slow_gauges(    out, i, value, part) {
    $0 = "";
    getline < LOADAVG;
    close(LOADAVG);
    split($4, part, "/");
    out = NF >= 4 ? "[" $1 "," $2 "," $3 "," part[1] "," part[2] "]" : "null";
    $0 = "";
    getline < FILE_NR;
    close(FILE_NR);
    out = out (NF >= 3 ? ",[" $1 "," number($3) "]" : ",null") ",[";
    for (i = 1; i <= SENSORS; i++) {
        value = first_line(SENSOR_PATH[i]);
        out = out (i > 1 ? "," : "") "[" SENSOR_NAME[i] "," (value ~ /^-?[1-9][0-9]*$/ ? value : "null") "]";
    }
    $0 = "";
    getline < "/proc/self/stat";
    close("/proc/self/stat");
    out = out "],[" (NF > 20 ? $14 "," $15 "," $16 "," $17 : "0,0,0,0");
    $0 = "";
    getline < "/proc/self/schedstat";
    close("/proc/self/schedstat");
    return out "," number($1) "]";
}

function each_cpu(    out) {
    out = "";
    getline < STAT;
    while ((getline < STAT) > 0 && $1 ~ /^cpu/)
        out = out (out == "" ? "[" : ",[") $2 "," $3 "," $4 "," $5 "," $6 "," $7 "," $8 "," $9 "]";
    close(STAT);
    return "[" out "]";
}

# The ten processes that used most cpu since the last time, then the ten others that hold most memory.
# Each is [pid, name, jiffies used since the last time, pages held].
function top_processes(    line, pid, name, i, n, field, used, last, j, best, out, by, shown) {
    split("", last);
    for (pid in USED) last[pid] = USED[pid];
    split("", USED);
    split("", NAME);
    split("", DELTA);
    split("", HELD);
    while ((LIST | getline line) > 0) {
        i = match(line, /[)] [A-Za-z] [0-9]/);
        if (i < 4) continue;
        pid = line + 0;
        j = index(line, "(");
        n = split(substr(line, i + 2), field, " ");
        if (n < 22 || j == 0) continue;
        NAME[pid] = substr(line, j + 1, i - j - 1);
        USED[pid] = field[12] + field[13];
        DELTA[pid] = (pid in last) && USED[pid] >= last[pid] ? USED[pid] - last[pid] : 0;
        HELD[pid] = field[22] + 0;
    }
    close(LIST);
    out = "";
    split("", shown);
    for (by = 0; by < 2; by++) for (i = 0; i < 10; i++) {
        best = "";
        for (pid in NAME) if ((pid in shown) == 0 && (best == "" || (by ? HELD[pid] > HELD[best] : DELTA[pid] > DELTA[best]))) best = pid;
        if (best == "") break;
        shown[best] = 1;
        out = out (out == "" ? "[" : ",[") best "," quoted(NAME[best]) "," sprintf("%d,%d", DELTA[best], HELD[best]) "]";
    }
    return "[" out "]";
}

# Filesystems are asked in the background and answer with lines of their own, because statfs on a dead disk can hang
# for ever and must not hold a tick. Only types that live on this machine are touched, so a dead NFS server cannot
# hang it in the first place. The console does not ask again before an answer came.
function filesystems(    line, path, seen, paths, n, part, i, last, piece) {
    # A good moment to forget the names of devices, for containers may make thousands a day.
    split("", DISK);
    split("", INTERFACE);
    paths = "";
    n = 0;
    while ((getline line < MOUNTS) > 0 && n < 64) {
        split(line, part, " ");
        if (part[3] == "overlay" && part[2] == "/") part[3] = "ext4";
        if ((part[3] in LOCAL) == 0 || (part[1] in seen) || index(part[2], BACKSLASH "012")) continue;
        seen[part[1]] = 1;
        path = ROOT part[2];
        while (i = index(path, BACKSLASH))
            path = substr(path, 1, i - 1) sprintf("%c", substr(path, i + 1, 1) * 64 + substr(path, i + 2, 1) * 8 + substr(path, i + 3, 1)) substr(path, i + 4);
        # The awks disagree on backslashes in gsub, so each apostrophe is replaced by hand.
        last = split(path, piece, APOSTROPHE);
        path = piece[1];
        for (i = 2; i <= last; i++) path = path APOSTROPHE BACKSLASH APOSTROPHE APOSTROPHE piece[i];
        paths = paths " " APOSTROPHE path APOSTROPHE;
        n++;
    }
    close(MOUNTS);
    if (paths == "") line = ":";
    else if (STAT_F) line = "exec stat -f -c " QUOTE "F %S %b %f %a %c %d %n" QUOTE paths;
    else line = "df -kP" paths " | { read -r d; while read -r d b u a c m; do echo " QUOTE "F 1024 $b $((b-u)) $a 0 0 $m" QUOTE "; done; }";
    system("{ set -- " ROOT "/proc/[0-9]*; echo P $#; " line "; } 2>/dev/null </dev/null &");
}

function memory(    i, out) {
    if (MEMORY_LINES == 0) return "null";
    for (i = 1; i <= MEMORY_LINES; i++) {
        if (i in MEMORY_KEY) {
            if ((getline < MEMINFO) <= 0) break;
            if ($1 == MEMORY_KEY[i]) MEMORY[$1] = $2;
        } else if ((getline out < MEMINFO) <= 0) break;
    }
    close(MEMINFO);
    return "[" MEMORY["MemTotal:"] "," MEMORY["MemFree:"] "," MEMORY["MemAvailable:"] "," MEMORY["Buffers:"] "," MEMORY["Cached:"] ","
        MEMORY["SwapTotal:"] "," MEMORY["SwapFree:"] "," MEMORY["Dirty:"] "," MEMORY["Shmem:"] "," MEMORY["SReclaimable:"] "]";
}

# The layout of meminfo is fixed while a kernel runs, so the lines that matter are looked for once.
function find_memory_lines(    n, i, key) {
    n = split("MemTotal: MemFree: MemAvailable: Buffers: Cached: SwapTotal: SwapFree: Dirty: Shmem: SReclaimable:", key, " ");
    for (i = 1; i <= n; i++) MEMORY[key[i]] = "null";
    for (i = 1; (getline < MEMINFO) > 0; i++) if ($1 in MEMORY) {
        MEMORY_KEY[i] = $1;
        MEMORY_LINES = i;
    }
    close(MEMINFO);
}

function pressure(    out) {
    getline < PSI_CPU;
    close(PSI_CPU);
    out = "[" substr($5, 7);
    getline < PSI_MEMORY;
    out = out "," substr($5, 7);
    getline < PSI_MEMORY;
    close(PSI_MEMORY);
    out = out "," substr($5, 7);
    getline < PSI_IO;
    out = out "," substr($5, 7);
    getline < PSI_IO;
    close(PSI_IO);
    return out "," substr($5, 7) "]";
}

# A partition follows its disk: sda1 after sda, nvme0n1p1 after nvme0n1. dm-10 after dm-1 is no partition of it.
function is_partition(name, whole,    rest) {
    if (whole == "" || index(name, whole) < 1 || index(name, whole) > 1) return 0;
    rest = substr(name, length(whole) + 1);
    return whole ~ /[0-9]$/ ? rest ~ /^p[0-9]+$/ : rest ~ /^[0-9]+$/;
}

# One or two disks are read by themselves, which is cheaper than the list of all that a kernel has; what there is, and
# what is in use, is looked up in that list with the slow gauges.
function disks(is_listing,    out, i, path) {
    if (is_listing || DISKS < 1 || DISKS > 2) return all_disks();
    out = "";
    for (i = 1; i <= DISKS; i++) {
        path = DISK_STAT[i];
        $0 = "";
        getline < path;
        close(path);
        if (NF < 11) return all_disks();
        out = out (i > 1 ? ",[" : "[") DISK_NAME[i] "," $1 "," $3 "," $4 "," $5 "," $7 "," $8 "," $10 "]";
    }
    return "[" out "]";
}

# Devices that have never been used are left out: a kernel may offer sixteen empty ones.
function all_disks(    out, n, whole) {
    out = "";
    n = 0;
    while ((getline < DISKSTATS) > 0) {
        if ($4 == 0 && $8 == 0) continue;
        if ($3 in DISK) {
            if (DISK[$3] == "") continue;
        } else {
            DISK[$3] = $3 ~ /^(loop|ram|zram|sr|fd)[0-9]/ || is_partition($3, whole) ? "" : quoted($3);
            if (DISK[$3] == "") continue;
        }
        whole = $3;
        if (++n > 128) break;
        out = out (n > 1 ? ",[" : "[") DISK[$3] "," $4 "," $6 "," $7 "," $8 "," $10 "," $11 "," $13 "]";
        DISK_NAME[n] = DISK[$3];
        DISK_STAT[n] = ROOT "/sys/block/" $3 "/stat";
    }
    close(DISKSTATS);
    DISKS = n;
    return "[" out "]";
}

# Ends of virtual cables are left out: a host of containers has hundreds, and their traffic is seen elsewhere.
function interfaces(    out, n) {
    out = "";
    n = 0;
    while ((getline < INTERFACES) > 0) {
        if ($2 == 0 && $10 == 0) continue;
        if ($1 in INTERFACE) {
            if (INTERFACE[$1] == "") continue;
        } else {
            if ($1 ~ /:./) sub(/:/, ": ");
            if (NF < 17 || $1 ~ /[|]/) continue;
            INTERFACE[$1] = $1 ~ /^(lo:|veth|cali|lxc[0-9a-f]|ifb|dummy|fwbr|fwln|fwpr|tap[0-9a-f]|vnet[0-9])/ ? "" : quoted(substr($1, 1, length($1) - 1));
            if (INTERFACE[$1] == "") continue;
        }
        if (++n > 128) break;
        out = out (n > 1 ? ",[" : "[") INTERFACE[$1] "," $2 "," $3 "," $4 "," $5 "," $10 "," $11 "," $12 "," $13 "]";
    }
    close(INTERFACES);
    return "[" out "]";
}

function answer(tick,    out) {
    $0 = "";
    getline < UPTIME;
    close(UPTIME);
    out = "[1," $1;
    $0 = "";
    getline < STAT;
    close(STAT);
    out = out (NF >= 9 ? ",[" $2 "," $3 "," $4 "," $5 "," $6 "," $7 "," $8 "," $9 "]" : ",null") "," memory();
    if (tick == "t") return out ",null," disks(0) "," interfaces() "]" NEWLINE;
    out = out "," (HAS_PRESSURE && tick ~ /[mc]/ ? pressure() : "null") "," disks(tick ~ /m/) "," interfaces();
    out = out "," (tick ~ /m/ ? slow_gauges() : "null,null,null,null");
    out = out "," (tick ~ /c/ ? each_cpu() : "null") "," (tick ~ /p/ ? top_processes() : "null");
    return out "]" NEWLINE;
}

BEGIN {
    QUOTE = sprintf("%c", 34);
    APOSTROPHE = sprintf("%c", 39);
    BACKSLASH = sprintf("%c", 92);
    NEWLINE = sprintf("%c", 10);
    for (I = 1; I < 256; I++) if (I < 32 || I > 126 || I == 34 || I == 92) ESCAPED[sprintf("%c", I)] = BACKSLASH sprintf("u%04x", I);
    OS_RELEASE = ROOT "/etc/os-release";
    KERNEL = ROOT "/proc/sys/kernel/";
    STAT = ROOT "/proc/stat";
    UPTIME = ROOT "/proc/uptime";
    MEMINFO = ROOT "/proc/meminfo";
    LOADAVG = ROOT "/proc/loadavg";
    FILE_NR = ROOT "/proc/sys/fs/file-nr";
    MOUNTS = ROOT "/proc/mounts";
    DISKSTATS = ROOT "/proc/diskstats";
    INTERFACES = ROOT "/proc/net/dev";
    PSI_CPU = ROOT "/proc/pressure/cpu";
    PSI_MEMORY = ROOT "/proc/pressure/memory";
    PSI_IO = ROOT "/proc/pressure/io";
    LIST = "cat " ROOT "/proc/[0-9]*/stat 2>/dev/null";
    SECTION["cpu"] = STAT;
    SECTION["memory"] = MEMINFO;
    SECTION["pressure"] = PSI_IO;
    SECTION["disks"] = DISKSTATS;
    SECTION["interfaces"] = INTERFACES;
    split("ext2 ext3 ext4 xfs btrfs zfs f2fs jfs reiserfs bcachefs nilfs2 ubifs jffs2 vfat exfat ntfs3", TYPE, " ");
    for (I in TYPE) LOCAL[TYPE[I]] = 1;
    HAS_PRESSURE = has(PSI_CPU) && has(PSI_MEMORY) && has(PSI_IO) && pressure() ~ /^.[0-9]+,[0-9]+,[0-9]+,[0-9]+,[0-9]+.$/;
    DISKS = 0;
    find_memory_lines();
    hello();
    find_sensors();
    while ((getline TICK) > 0) {
        printf "%s", answer(TICK);
        fflush();
        if (TICK == "t") continue;
        if (TICK ~ /f/) filesystems();
        if (TICK ~ /h/) hello();
    }
}
