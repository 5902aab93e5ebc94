"""Rules about the running system: power, processes, services."""

from server_monitor.tasks.policy.rules.rule import Rule, match

UNITS = (
    r"(sshd?|dbus|dbus-broker|systemd-\w+|NetworkManager|networking|network|systemd-networkd|systemd-resolved|wpa_supplicant|"
    r"polkit|cron|crond|getty@?\S*|multi-user|basic|sysinit|init|dhcpcd|dhclient|ifupdown|kubelet|containerd|docker|"
    r"firewalld|ufw|iptables|nftables|auditd|rsyslog|syslog|syslog-ng|systemd-journald|apparmor|fail2ban|chronyd?|ntpd?|"
    r"libvirtd|pve-cluster|corosync|pacemaker|etcd|mysqld?|mariadb|postgresql\S*|mongod|lvm2\S*|multipathd|iscsid|"
    r"open-iscsi|display-manager|crowdsec|falco|osqueryd|wazuh-agent|ossec|clamav-daemon|falcon-sensor)"
)

RULES = (
    Rule(
        "sys.power",
        "system",
        "critical",
        "Turns the host off, restarts it or takes it to another state.",
        "ask for approval with the time of the maintenance",
        (
            "reboot",
            "shutdown -h now",
            "systemctl poweroff",
            "init 0",
            "sudo halt -f",
            "rtcwake -m off -s 60",
            "dbus-send --system --dest=org.freedesktop.login1 /org/freedesktop/login1 org.freedesktop.login1.Manager.Reboot boolean:true",
        ),
        (
            "shutdown -c",
            "shutdown --help",
            "last reboot",
            "systemctl status reboot.target",
            "uptime",
            "shutdown --show",
        ),
        references=("shutdown(8)", "systemctl(1)", "init(1)"),
        matches=(
            match("shutdown", r"", "shuts the host down", unless=r"{w}(-c|--show|--help){e}"),
            match(
                "reboot halt poweroff",
                r"",
                "stops or restarts the host",
                unless=r"{w}(--help|-w|--wtmp-only|--version){e}",
            ),
            match("init telinit", r"{w}[0126sSuU]{e}", "takes the host to another run level"),
            match(
                "systemctl",
                r"{w}(poweroff|reboot|halt|kexec|suspend|hibernate|hybrid-sleep|suspend-then-hibernate|soft-reboot|exit|rescue|"
                r"emergency|default|switch-root|isolate){e}",
                "stops the host or takes it to another state",
                unless=r"{w}(status|show|cat|is-active|is-enabled|list-\S+|help|--help|--when=cancel){e}",
            ),
            match(
                "systemctl",
                r"{w}(start|restart)\b.* (poweroff|reboot|halt|kexec|rescue|emergency|suspend|hibernate)(\.target|\.service)?{e}",
                "stops the host",
            ),
            match(
                "loginctl", r"{w}(poweroff|reboot|halt|suspend|hibernate|terminate-user|kill-user){e}", "stops the host"
            ),
            match(
                "dbus-send busctl gdbus qdbus",
                r"(?i)(login1|systemd1|ConsoleKit|UPower|consolekit)\S*.*(PowerOff|Reboot|Halt|Suspend|Hibernate|KExec|Stop\b)",
                "stops the host",
            ),
            match(
                "rtcwake",
                r"",
                "puts the host to sleep",
                unless=r"{w}(-m (no|on|show|disable)|-l|--help|--mode (no|on|show|disable))",
            ),
            match("pm-suspend pm-hibernate pm-powersave s2ram s2disk zzz apm", r"", "puts the host to sleep"),
            match("openrc-shutdown runit-init sv-shutdown", r"", "stops the host", unless=r"--help"),
            match(
                "sv",
                r"{w}(exit|down|force-stop|force-shutdown) .*(getty|sshd|udevd|dbus)",
                "stops a service of the system",
            ),
            match("ipmitool", r"{w}(chassis )?power (off|reset|cycle|soft|diag)", "turns the machine off"),
            match(
                "xe virsh",
                r"{w}(shutdown|destroy|undefine|reboot|reset|vm-shutdown|vm-destroy|vm-uninstall|vol-delete|pool-destroy|pool-delete|net-destroy)(?= |$)",
                "stops or removes a virtual machine",
            ),
            match("qm pct", r"{w}(stop|shutdown|destroy|reset|reboot){e}", "stops or removes a virtual machine"),
            match(
                "VBoxManage",
                r"{w}(unregistervm|controlvm .*(poweroff|reset)|closemedium .*delete)",
                "stops or removes a virtual machine",
            ),
            match("uhubctl etherwake", r"$^", ""),
        ),
    ),
    Rule(
        "sys.kill_all",
        "system",
        "critical",
        "Ends every process, the first one, or those that the system needs.",
        "name the process that is meant",
        (
            "kill -9 -1",
            "killall5 -9",
            "pkill -9 -u root",
            "kill -KILL 1",
            "kill -9 $(ps -e -o pid=)",
            "killall -9 sshd",
            "for p in $(ps -eo pid); do kill -9 $p; done",
        ),
        ("kill 4242", "kill -0 1", "pkill -f myworker", "kill $(pidof myapp)", "killall -HUP nginx", "kill -l"),
        references=("kill(1)", "killall(1)", "pkill(1)"),
        matches=(
            match("killall5", r"", "ends every process"),
            match("pkill", r"{w}-u ?(root|0){e}|--euid[ =](root|0)|-U ?(root|0){e}", "ends every process of root"),
            match(
                "pkill",
                r"{w}(\.|\.\*|''|\^|\.\+|\[a-z\]|\*|'\*'|'\.\*'|'\^'){e}|-v ",
                "ends nearly every process",
                unless=r"{w}-0{e}",
            ),
            match(
                "pkill killall",
                r"{w}(sshd|systemd|init|systemd-\w+|dbus-daemon|dockerd|containerd|kubelet|NetworkManager|udevd|agetty|login|bash|auditd|rsyslogd|journald|systemd-journald|mysqld|postgres|mongod|java){e}",
                "ends processes that the system needs",
                unless=r"{w}(-HUP|-1|-USR[12]|-SIGHUP|-0|-s HUP|-CONT|--signal HUP)",
            ),
            match("killall", r"{w}(-u ?root|--user[ =]root)|{w}-r ['\"]?\.\*?", "ends every process of root"),
            match("skill snice", r"{w}-(KILL|9)\b.*-u root", "ends every process of root"),
            match(
                "fuser",
                r"{w}(-\w*k|--kill).* (-m )?/(usr|var|home|etc|bin|lib|dev|boot|opt)?/?{e}|{w}-\w*[km]\w* /(?= |$)",
                "ends every process that uses a file system of the host",
            ),
            match("pkill", r"{w}(-\w*P ?|--parent[ =])1{e}", "ends everything that the first process started"),
            match("slay", r"{w}root{e}", "ends every process of root"),
        ),
    ),
    Rule(
        "sys.stop_critical_service",
        "system",
        "high",
        "Stops, disables or masks a service that the host or its users depend on.",
        "restart it instead, or ask for approval",
        (
            "systemctl stop sshd",
            "systemctl disable --now NetworkManager",
            "service ssh stop",
            "systemctl mask systemd-journald",
            "/etc/init.d/networking stop",
            "systemctl kill -s KILL dbus",
        ),
        (
            "systemctl restart nginx",
            "systemctl stop myapp",
            "systemctl status sshd",
            "service nginx reload",
            "systemctl restart sshd",
            "systemctl enable --now docker",
        ),
        references=("systemctl(1)", "service(8)"),
        matches=(
            match(
                "systemctl",
                r"{w}(stop|disable|mask|kill|freeze|revert)\b.* " + UNITS + r"(\.(service|socket|target))?{e}",
                "stops a service that the host needs",
                unless=r"{w}--user{e}|{w}(-s|--signal)[ =]?(SIG)?HUP",
            ),
            match("systemctl", r"{w}(stop|disable|mask|kill)\b.* '?\*", "stops every service"),
            match(
                "service invoke-rc.d rc-service",
                r"{w}" + UNITS + r" (stop|force-stop|zap){e}",
                "stops a service that the host needs",
            ),
            match(
                "update-rc.d chkconfig rc-update insserv",
                UNITS + r" (remove|disable|off|del)|(disable|remove|del|delete) " + UNITS,
                "takes a service out of the start",
            ),
            match(
                "initctl stop", UNITS, "stops a service that the host needs", unless=r"{w}(status|list|start|restart)"
            ),
            match("launchctl", r"{w}(unload|bootout|remove|disable)", "stops a service"),
            match("supervisorctl", r"{w}(shutdown|stop all){e}", "stops every program of the supervisor"),
            match("pm2", r"{w}(kill|delete all|stop all){e}", "stops every program of the supervisor"),
            match("docker podman", r"{w}(swarm leave.*(-f|--force)|node rm)", "takes the host out of its cluster"),
            match("kubeadm", r"{w}reset", "takes the host out of its cluster"),
        ),
    ),
    Rule(
        "sys.default_target",
        "system",
        "high",
        "Changes what the host starts into.",
        "ask for approval",
        (
            "systemctl set-default rescue.target",
            "systemctl set-default poweroff.target",
            "ln -sf /lib/systemd/system/reboot.target /etc/systemd/system/default.target",
            "systemctl --force set-default emergency.target",
            "rm /etc/systemd/system/default.target",
        ),
        (
            "systemctl get-default",
            "systemctl list-units --type=target",
            "systemctl daemon-reload",
            "ls -l /etc/systemd/system/default.target",
            "systemctl cat default.target",
        ),
        references=("systemctl(1)", "systemd.special(7)"),
        matches=(match("systemctl", r"{w}set-default{e}", "changes what the host starts into"),),
    ),
    Rule(
        "sys.clock",
        "system",
        "medium",
        "Sets the clock: certificates, logs, jobs and replicas go by it.",
        "let a time service set it, or ask for approval",
        (
            "date -s '1990-01-01'",
            "timedatectl set-time '2020-01-01 00:00'",
            "hwclock --set --date '1990-01-01'",
            "date --set=@0",
            "sudo date -us 12:00",
        ),
        (
            "date",
            "date -d '1 day ago' +%F",
            "timedatectl",
            "timedatectl set-timezone UTC",
            "hwclock --show",
            "date -u +%s",
        ),
        ruling="needs_approval",
        references=("date(1)", "timedatectl(1)"),
        matches=(
            match("date", r"{w}(-u?s|--set)", "sets the clock"),
            match("timedatectl", r"{w}(set-time(?= |$)|set-ntp (0|no|false))", "sets the clock"),
            match("hwclock", r"{w}(--set|-s|--hctosys)(?= |$)", "sets the clock"),
            match("ntpdate rdate busybox-ntpd", r"$^", ""),
        ),
    ),
    Rule(
        "bomb.fork",
        "resources",
        "critical",
        "Starts processes without end until the host is full.",
        "bound the number of processes",
        (
            ":(){ :|:& };:",
            "f() { f & f & }; f",
            "while true; do bash & done",
            "bomb() { bomb | bomb & }; bomb",
            "echo '$0 & $0 &' > /tmp/x; chmod +x /tmp/x; sh /tmp/x",
        ),
        (
            "for i in 1 2 3; do ./job $i & done; wait",
            "f() { echo hi; }; f & wait",
            "while true; do date; sleep 1; done",
            "sleep 60 &",
            "make -j4",
        ),
        references=("bash(1)", "setrlimit(2)"),
        matches=(match("perl ruby python", r"$^", ""),),
    ),
    Rule(
        "bomb.fill",
        "resources",
        "critical",
        "Fills memory, a disk or the processors without end.",
        "bound the size with head -c or count=",
        (
            "yes > /tmp/big",
            "cat /dev/zero > /var/fill",
            "dd if=/dev/zero of=/home/user/fill",
            "fallocate -l 900G /fill",
            "tail /dev/zero",
            "while true; do echo x >> /tmp/f; done",
        ),
        (
            "dd if=/dev/zero of=/tmp/1m bs=1M count=1",
            "head -c 1M /dev/urandom > key",
            "fallocate -l 2G /swapfile",
            "yes | head -3",
            "yes | apt-get install htop",
        ),
        references=("dd(1)", "fallocate(1)"),
        matches=(
            match(
                "fallocate truncate",
                r"{w}(-l|-s|--length|--size)[ =]?(\d{3,}G|\d+[TPE]|\d{13,})",
                "reserves more than 100 GB",
                unless=r"truncate",
            ),
            match(
                "tail sort tac rev xxd od",
                r"{w}/dev/(zero|urandom|random|full){e}",
                "reads an endless device into memory",
                unless=r"{w}-\w*[cnNl]",
            ),
            match(
                "stress stress-ng",
                r"--(vm-bytes|hdd|fork|vm|brk|bigheap|cpu 0|all|class)|{w}-[mdc] ",
                "loads the host until it stops answering",
            ),
            match("swapoff", r"$^", ""),
            match("sysbench", r"$^", ""),
        ),
    ),
)
