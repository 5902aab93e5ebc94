"""Rules about the kernel, its settings and how it is started."""

from server_monitor.tasks.policy.rules.rule import Rule, match

TUNING = (
    r"(vm\.(swappiness|drop_caches|dirty_\w+|max_map_count|vfs_cache_pressure|min_free_kbytes|overcommit_memory)|"
    r"net\.core\.(somaxconn|netdev_\w+|[rw]mem_\w+|optmem_max|default_qdisc|busy_\w+)|"
    r"net\.ipv4\.(tcp_(?!syncookies)\w+|ip_local_port_range|udp_\w+)|fs\.(inotify\.\w+|file-max|nr_open|aio-max-nr)|"
    r"net\.netfilter\.\w+|net\.nf_conntrack_max|kernel\.(shmmax|shmall|sem|msgmax|msgmnb|pid_max|hostname))"
)

RULES = (
    Rule(
        "kernel.module",
        "kernel",
        "high",
        "Loads code into the running kernel, or takes a module out of it.",
        "ask for approval with the module's name",
        ("rmmod ext4", "modprobe -r e1000e", "insmod ./x.ko", "modprobe evil", "rmmod -f nvme", "kmod remove xfs"),
        ("lsmod", "modinfo ext4", "modprobe -n -v e1000e", "modprobe --show-depends ext4", "modprobe -c", "depmod -n"),
        references=("modprobe(8)",),
        matches=(
            match("rmmod insmod", r"\S", "changes the modules of the kernel", unless=r"{w}(--help|-V|--version){e}"),
            match(
                "modprobe",
                r"\S",
                "changes the modules of the kernel",
                unless=r"{w}(-n|-\w*n\w*|--dry-run|--show|--show-depends|-D|-c|--showconfig|--help|-V|--resolve-alias|-R|--show-modversions|--dump-modversions|--show-config|--show-exports){e}",
            ),
            match("kmod", r"{w}(insert|remove|load|unload){e}", "changes the modules of the kernel"),
            match("dkms", r"{w}(remove|uninstall|unbuild){e}", "removes a module"),
            match(
                "bpftool",
                r"{w}(prog (load|attach|detach)|net attach|map (delete|update))",
                "loads code into the kernel",
            ),
            match("livepatch kpatch", r"{w}(load|unload|disable|install)", "patches the running kernel"),
        ),
    ),
    Rule(
        "kernel.sysrq",
        "kernel",
        "critical",
        "Talks to the kernel past every program: restart, crash, end all.",
        "use shutdown, with an approval",
        (
            "echo b > /proc/sysrq-trigger",
            "echo c | sudo tee /proc/sysrq-trigger",
            "echo o >/proc/sysrq-trigger",
            "printf b > /proc/sysrq-trigger",
            "cp /tmp/b /proc/sysrq-trigger",
        ),
        ("cat /proc/sys/kernel/sysrq", "ls /proc", "cat /proc/meminfo", "grep -i sysrq /etc/sysctl.conf", "man proc"),
        references=("proc(5)",),
    ),
    Rule(
        "kernel.kexec",
        "kernel",
        "critical",
        "Starts another kernel from the running one.",
        "restart the host, with an approval",
        (
            "kexec -e",
            "kexec -l /boot/vmlinuz",
            "kexec --exec",
            "kexec -p /boot/vmlinuz --append=x",
            "kexec --load /tmp/k",
        ),
        ("kexec --help", "kexec -v", "uname -r", "ls /boot", "kexec --status"),
        references=("kexec(8)",),
        matches=(match("kexec", r"\S", "starts another kernel", unless=r"{w}(--help|-h|-v|--version|-S|--status){e}"),),
    ),
    Rule(
        "kernel.sysctl",
        "kernel",
        "high",
        "Changes a setting of the running kernel that guards the host or its network.",
        "put it into a file of /etc/sysctl.d that is reviewed",
        (
            "sysctl -w kernel.panic=1",
            "sysctl kernel.randomize_va_space=0",
            "echo 0 > /proc/sys/net/ipv4/conf/all/rp_filter",
            "sysctl -w net.ipv4.ip_forward=1",
            "echo '|/tmp/x' > /proc/sys/kernel/core_pattern",
            "sysctl --write kernel.sysrq=1",
        ),
        (
            "sysctl -a",
            "sysctl net.ipv4.ip_forward",
            "sysctl -w vm.swappiness=10",
            "echo 3 > /proc/sys/vm/drop_caches",
            "sysctl --system",
            "cat /proc/sys/kernel/panic",
        ),
        references=("sysctl(8)", "proc_sys(5)"),
        matches=(
            match(
                "sysctl",
                r"[\w/.-]+ ?=",
                "changes a guarding setting of the kernel",
                unless=r"^(?:-\S+ |--write )*'?" + TUNING + r" ?=[^ ]*(?:'|\b)$",
            ),
        ),
    ),
    Rule(
        "kernel.boot",
        "kernel",
        "critical",
        "Changes or removes what the host starts from.",
        "ask for approval",
        (
            "rm -rf /boot/*",
            "rm /boot/vmlinuz-6.1",
            "grub-install /dev/sda",
            "efibootmgr -b 0001 -B",
            "dd if=/dev/zero of=/boot/efi/x",
            "grub2-mkconfig -o /boot/grub2/grub.cfg",
        ),
        ("ls /boot", "efibootmgr", "cat /boot/grub/grub.cfg", "bootctl status", "grub-editenv list"),
        references=("grub-install(8)", "efibootmgr(8)"),
        matches=(
            match(
                "grub-install grub2-install lilo extlinux syslinux",
                r"",
                "writes a boot loader",
                unless=r"{w}(--help|-V|--version|-h){e}",
            ),
            match(
                "efibootmgr",
                r"{w}(-\w*[BDONoncC]\w*|--delete-bootnum|--create|--bootorder|--bootnext|--delete-\S+|--active|-[aA])",
                "changes the start of the host",
                unless=r"{w}--help",
            ),
            match(
                "bootctl",
                r"{w}(install|remove|update|set-default|set-oneshot|unlink|cleanup){e}",
                "changes the boot loader",
            ),
            match("grub-mkconfig grub2-mkconfig", r"{w}(-o|--output)", "writes the configuration of the boot loader"),
            match("update-grub update-grub2", r"", "writes the configuration of the boot loader", unless=r"--help"),
            match(
                "grubby",
                r"{w}(--remove-\S+|--set-default|--update-kernel|--add-kernel|--args)",
                "changes the start of the host",
            ),
            match(
                "grub-set-default grub-reboot grub2-set-default grub2-reboot",
                r"",
                "changes the start of the host",
                unless=r"--help",
            ),
            match("grub-editenv", r"{w}(set|unset|create){e}", "changes the start of the host"),
            match(
                "update-initramfs dracut mkinitcpio",
                r"{w}(-\w*d\w*|--delete){e}",
                "removes an initial file system",
                unless=r"dracut",
            ),
            match(
                "flashrom fwupdmgr fwupdtool", r"{w}(-w|--write|-E|--erase|install|downgrade|update)", "writes firmware"
            ),
            match("mokutil", r"{w}--(disable-validation|delete|reset|import)", "weakens the verified start"),
        ),
    ),
    Rule(
        "kernel.raw_memory",
        "kernel",
        "critical",
        "Writes or reads memory or hardware past the kernel, or removes a device from it.",
        "ask for approval",
        (
            "dd if=/dev/mem of=x",
            "echo 1 > /sys/block/sda/device/delete",
            "echo 1 > /sys/bus/pci/devices/0000:00:1f.2/remove",
            "cat x > /dev/mem",
            "echo mem > /sys/power/state",
            "echo 0 > /sys/devices/system/cpu/cpu1/online",
        ),
        (
            "cat /sys/class/net/eth0/speed",
            "ls /sys/block",
            "echo mq-deadline > /sys/block/sda/queue/scheduler",
            "cat /proc/meminfo",
            "cat /sys/power/state",
        ),
        references=("mem(4)", "sysfs(5)"),
        matches=(
            match(
                "devmem devmem2 setpci wrmsr memtool",
                r"\S",
                "writes to hardware past the kernel",
                unless=r"{w}(--help|-s \S+ \w+)$",
            ),
            match("echo", r"$^", ""),
            match("udevadm", r"{w}trigger .*--action=remove", "removes devices"),
            match("gdb", r"/proc/kcore", "reads the kernel's memory"),
        ),
    ),
)
