"""The paths that a host cannot lose, by what losing or changing them means. Data; `paths.py` looks things up in it."""

# Directories of the system: everything in them belongs to the system unless EXEMPT says otherwise.
SYSTEM_TREES = (
    "/bin",
    "/boot",
    "/dev",
    "/efi",
    "/etc",
    "/lib",
    "/lib32",
    "/lib64",
    "/libx32",
    "/proc",
    "/sbin",
    "/sys",
    "/usr",
)

# Directories that must not go as a whole, while single things in them may.
CONTAINERS = (
    "/",
    "/data",
    "/backup",
    "/backups",
    "/home",
    "/media",
    "/mnt",
    "/opt",
    "/root",
    "/run",
    "/snap",
    "/srv",
    "/tmp",
    "/usr/local",
    "/usr/local/bin",
    "/usr/local/etc",
    "/usr/local/lib",
    "/usr/local/sbin",
    "/usr/local/share",
    "/var",
    "/var/backups",
    "/var/lib",
    "/var/log",
    "/var/mail",
    "/var/spool",
    "/var/spool/cron",
    "/var/www",
)

# Data that programs keep; nothing of it is deleted by hand.
STATE_TREES = (
    "/var/lib/apt/extended_states",
    "/var/lib/cassandra",
    "/var/lib/ceph",
    "/var/lib/clickhouse",
    "/var/lib/containerd",
    "/var/lib/docker",
    "/var/lib/dpkg",
    "/var/lib/elasticsearch",
    "/var/lib/etcd",
    "/var/lib/influxdb",
    "/var/lib/kubelet",
    "/var/lib/ldap",
    "/var/lib/libvirt",
    "/var/lib/mongo",
    "/var/lib/mongodb",
    "/var/lib/mysql",
    "/var/lib/neo4j",
    "/var/lib/pacman",
    "/var/lib/pgsql",
    "/var/lib/postgresql",
    "/var/lib/prometheus",
    "/var/lib/rabbitmq",
    "/var/lib/redis",
    "/var/lib/rpm",
    "/var/lib/systemd",
    "/var/lib/vault",
    "/var/spool/cron",
)

# Places inside the trees above where people keep what is theirs.
EXEMPT = (
    "/dev/mqueue",
    "/dev/shm",
    "/usr/local",
    "/usr/lib/node_modules",
    "/usr/src",
    "/usr/share/nginx/html",
    "/var/lib/apt/lists",
    "/var/lib/systemd/coredump",
    "/var/lib/docker/tmp",
    "/var/lib/containerd/tmp",
)

# Single files that a host does not start, log in or resolve names without. `*` stays within one directory.
FILES = (
    "/etc/crypttab",
    "/etc/default/grub",
    "/etc/environment",
    "/etc/fstab",
    "/etc/group",
    "/etc/gshadow",
    "/etc/hostname",
    "/etc/hosts",
    "/etc/inittab",
    "/etc/kubernetes/*",
    "/etc/kubernetes/pki/*",
    "/etc/ld.so.cache",
    "/etc/ld.so.conf",
    "/etc/ld.so.preload",
    "/etc/login.defs",
    "/etc/machine-id",
    "/etc/modules",
    "/etc/netplan/*",
    "/etc/network/interfaces",
    "/etc/nsswitch.conf",
    "/etc/pam.conf",
    "/etc/pam.d/*",
    "/etc/passwd",
    "/etc/profile",
    "/etc/resolv.conf",
    "/etc/securetty",
    "/etc/security/*",
    "/etc/selinux/config",
    "/etc/shadow",
    "/etc/shells",
    "/etc/ssh/*",
    "/etc/subuid",
    "/etc/sudo.conf",
    "/etc/sudoers",
    "/etc/sudoers.d/*",
    "/etc/sysconfig/network-scripts/*",
    "/etc/systemd/system.conf",
    "/etc/systemd/network/*",
    "/etc/systemd/resolved.conf",
    "/etc/NetworkManager/NetworkManager.conf",
    "/etc/NetworkManager/system-connections/*",
    "/etc/network/interfaces.d/*",
    "/etc/dhcp/dhclient.conf",
    "/etc/iptables/*",
    "/etc/nftables.conf",
    "/etc/sysconfig/network",
    "/etc/sysconfig/iptables",
    "/etc/ufw/*",
    "/etc/wpa_supplicant/*",
    "/etc/audit/*",
    "/etc/bash.bashrc",
    "/etc/rsyslog.conf",
    "/root/.bashrc",
    "/root/.profile",
    "/root/.ssh/*",
    "/var/spool/cron/*",
    "/initrd.img",
    "/vmlinuz",
)

ACCOUNT_FILES = frozenset(
    (
        "/etc/passwd",
        "/etc/shadow",
        "/etc/group",
        "/etc/gshadow",
        "/etc/sudoers",
        "/etc/security/opasswd",
        "/etc/subuid",
        "/etc/subgid",
        "/etc/login.defs",
        "/etc/securetty",
        "/etc/doas.conf",
        "/etc/sudo.conf",
    )
)
ACCOUNT_TREES = ("/etc/sudoers.d", "/etc/pam.d", "/etc/polkit-1")

NAME_RESOLUTION = frozenset(("/etc/hosts", "/etc/resolv.conf", "/etc/nsswitch.conf"))

# Files whose contents run by themselves later: with the loader, at the start, at a log-in, by the clock.
STARTS_CODE_TREES = (
    "/etc/cron.d",
    "/etc/cron.daily",
    "/etc/cron.hourly",
    "/etc/cron.monthly",
    "/etc/cron.weekly",
    "/etc/init.d",
    "/etc/profile.d",
    "/etc/rc.local",
    "/etc/crontab",
    "/etc/rc.d",
    "/etc/systemd/system",
    "/etc/udev/rules.d",
    "/etc/update-motd.d",
    "/lib/systemd/system",
    "/usr/lib/systemd/system",
    "/var/spool/cron",
    "/etc/network/if-up.d",
    "/etc/apt/apt.conf.d",
)

# The record of who did what. Their old, rotated copies are not meant.
LOGS = (
    "/etc/audit",
    "/etc/rsyslog.d",
    "/etc/rsyslog.conf",
    "/etc/syslog-ng",
    "/var/log/audit",
    "/var/log/journal",
    "/run/log/journal",
    "/var/log/auth.log",
    "/var/log/secure",
    "/var/log/syslog",
    "/var/log/messages",
    "/var/log/kern.log",
    "/var/log/wtmp",
    "/var/log/btmp",
    "/var/log/lastlog",
    "/var/log/faillog",
    "/var/log/tallylog",
    "/var/log/utmp",
    "/var/run/utmp",
    "/run/utmp",
    "/var/log/sudo.log",
    "/var/log/cron",
    "/var/log/dpkg.log",
    "/var/log/sudo-io",
)
HISTORIES = (
    ".bash_history",
    ".zsh_history",
    ".sh_history",
    ".history",
    ".mysql_history",
    ".psql_history",
    ".python_history",
)

SECRETS = ("/etc/shadow", "/etc/gshadow", "/etc/ssl/private", "/etc/kubernetes/pki", "/etc/krb5.keytab")
SECRET_ENDS = (
    "/.ssh/id_rsa",
    "/.ssh/id_ed25519",
    "/.ssh/id_ecdsa",
    "/.ssh/id_dsa",
    "/.aws/credentials",
    "/.kube/config",
    "/.pgpass",
    "/.my.cnf",
    "/.netrc",
    "/.docker/config.json",
    "/.gnupg",
    "/.git-credentials",
    "/.vault-token",
    "/.ssh",
)

HARMLESS_DEVICES = frozenset(
    (
        "/dev/null",
        "/dev/zero",
        "/dev/full",
        "/dev/random",
        "/dev/urandom",
        "/dev/tty",
        "/dev/ptmx",
        "/dev/console",
        "/dev/stdin",
        "/dev/stdout",
        "/dev/stderr",
        "/dev/log",
        "/dev/shm",
        "/dev/fd",
        "/dev/pts",
        "/dev/mqueue",
    )
)

WRITABLE_BY_ALL = ("/tmp", "/var/tmp", "/dev/shm")

# Nested names of the root directory of the running system.
ROOT_ALIASES = ("/proc/self/root", "/proc/1/root", "/proc/thread-self/root", "/host", "/rootfs", "/sysroot")
# Where the programs of the system lie, and nobody but root puts any.
SYSTEM_PROGRAM_DIRECTORIES = ("/bin", "/sbin", "/usr/bin", "/usr/sbin", "/usr/local/bin", "/usr/local/sbin")
PROGRAM_DIRECTORIES = (*SYSTEM_PROGRAM_DIRECTORIES, "/snap/bin")
