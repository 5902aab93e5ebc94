"""Rules about installed software."""

from server_monitor.tasks.policy.rules.rule import Rule, match

DRY = r"{w}(-\w*s\w*|--simulate|--dry-run|--just-print|--recon|--no-act|--download-only|--assumeno|--test|--setopt=tsflags=test|--setopt tsflags=test|--help|-p|--print){e}"

RULES = (
    Rule(
        "pkg.remove",
        "packages",
        "high",
        "Removes installed packages, and what depends on them.",
        "try it with --dry-run, and ask for approval with the list",
        (
            "apt-get remove -y nginx",
            "apt purge openssh-server",
            "yum erase httpd",
            "dpkg -r libc6",
            "rpm -e glibc",
            "pacman -Rns linux",
            "apk del openssh",
        ),
        (
            "apt-get install nginx",
            "apt-get -s remove nginx",
            "apt-get autoremove -y",
            "dpkg -l",
            "yum check-update",
            "rpm -qa",
            "pacman -Syu",
        ),
        references=("apt-get(8)", "dpkg(1)", "rpm(8)"),
        matches=(
            match("apt-get", r"{w}(remove|purge){e}", "removes packages", unless=DRY),
            match(
                "apt-get", r"{w}autoremove (.* )?[a-z0-9][\w.+-]+{e}|{w}autopurge [a-z]", "removes packages", unless=DRY
            ),
            match(
                "apt-get",
                r"{w}(install|dist-upgrade|full-upgrade|upgrade){e}.* [a-z0-9][\w.+-]*[-_]{e}",
                "removes packages by installing them with a minus",
                unless=DRY,
            ),
            match("dpkg", r"{w}(-[rP]|--remove|--purge)(?= |$)", "removes packages", unless=DRY),
            match(
                "rpm",
                r"{w}(-\w*e\w*|--erase){e}",
                "removes packages",
                unless=r"{w}(--test|-q\w*|--query|--eval|-E|--import|--rebuilddb)",
            ),
            match(
                "yum dnf zypper urpme",
                r"{w}(remove|erase|rm|autoremove \S+|groupremove|group remove|module remove|swap|history undo|history rollback){e}",
                "removes packages",
                unless=DRY,
            ),
            match("pacman yay paru", r"{w}-\w*R\w*", "removes packages", unless=r"{w}(-\w*p\w*|--print)"),
            match("apk", r"{w}del{e}", "removes packages", unless=r"{w}(-s|--simulate)"),
            match("snap flatpak", r"{w}(remove|uninstall){e}", "removes packages"),
            match(
                "emerge", r"{w}(-C|--unmerge|--depclean|-c|--prune)", "removes packages", unless=r"{w}(-p|--pretend)"
            ),
            match(
                "pkg pkg_delete pkgrm removepkg slackpkg nix-env xbps-remove opkg swupd equo",
                r"{w}(delete|remove|del|-e|--uninstall|-R|-o|bundle-remove|rm|\S+){e}",
                "removes packages",
                unless=r"{w}(info|search|list|update|install|-i|-q|-qa|query|-V|--help|upgrade|-n|-u)",
            ),
            match("pkcon apt-rpm urpme cave guix conary", r"{w}(remove|uninstall|erase){e}", "removes packages"),
            match("dpkg", r"--set-selections.*(deinstall|purge)", "marks packages for removal"),
            match("yum dnf zypper", r"{w}shell{e}.*\b(remove|erase|rm)\b", "removes packages"),
            match(
                "puppet",
                r"{w}resource (package|service|user|file|mount|exec)\b.*ensure=(absent|purged|stopped)",
                "removes packages or services",
            ),
            match("dpkg", r"{w}--clear-selections{e}", "marks every package for removal"),
            match(
                "dpkg-divert", r"{w}--(add|rename|remove)\b", "moves files of packages", unless=r"{w}(--test|--list){e}"
            ),
            match("update-alternatives", r"{w}--(remove|remove-all){e}", "takes programs away"),
            match(
                "brew", r"{w}(uninstall|remove|rm|autoremove){e}", "removes packages", unless=r"{w}(-n|--dry-run){e}"
            ),
            match("gem", r"{w}uninstall{e}.*{w}(-\w*a\w*|--all|-x|--force|-I){e}", "removes packages"),
            match(
                "npm yarn pnpm",
                r"{w}(uninstall|remove|rm|un){e}.*(-g|--global)\b.*{w}(npm|node|yarn|corepack){e}",
                "removes packages",
            ),
            match("tasksel aptitude-remove", r"{w}remove{e}", "removes packages"),
            match(
                "pip pip3",
                r"{w}uninstall{e}.*(--break-system-packages|setuptools|pip){e}",
                "removes packages of the system's Python",
            ),
        ),
    ),
    Rule(
        "pkg.force",
        "packages",
        "high",
        "Installs or removes packages against the warnings of the package manager.",
        "resolve the conflict that it reports",
        (
            "dpkg --force-all -i x.deb",
            "rpm -Uvh --nodeps --force x.rpm",
            "apt-get install -y --allow-remove-essential x",
            "rpm -e --nodeps openssl",
            "apt-get --force-yes install x",
            "pacman -S --overwrite '*' glibc",
        ),
        ("dpkg -i x.deb", "rpm -Uvh x.rpm", "apt-get install -f", "apt-get -y upgrade", "dpkg --configure -a"),
        references=("dpkg(1)", "apt-get(8)"),
        matches=(
            match(
                "dpkg",
                r"{w}--force-(all|remove-essential|remove-reinstreq|depends|overwrite|bad-\w+|downgrade|remove-protected)",
                "forces packages",
            ),
            match("rpm", r"{w}(--nodeps|--force|--replacefiles|--noscripts|--allfiles){e}", "forces packages"),
            match(
                "apt-get",
                r"{w}(--force-yes|--allow-remove-essential|--allow-downgrades|--allow-unauthenticated|--allow-change-held-packages)",
                "forces packages",
            ),
            match(
                "apt-get",
                r"(?i)(Allow-?Unauthenticated|AllowInsecureRepositories|Allow-Remove-Essential|Force-Yes)['\"]?[= ]['\"]?(true|1|yes)",
                "forces packages",
            ),
            match("pacman", r"{w}(-\w*dd\w*|--nodeps|--overwrite)", "forces packages"),
            match(
                "yum dnf",
                r"{w}(--nogpgcheck|--skip-broken --allowerasing|--setopt=protected\S*|--setopt=clean_requirements\S*)",
                "installs without a check",
                unless=r"$^",
            ),
            match("apk", r"{w}(--force-\S+|--allow-untrusted|-f)", "forces packages"),
            match(
                "do-release-upgrade",
                r"",
                "upgrades the whole system",
                unless=r"{w}(-c|--check-dist-upgrade-only|--help)",
            ),
        ),
    ),
)
