"""Why a server is not simply online: for every reason code one sentence and one remedy in plain language.

`docs/reference/reasons.md` lists them for readers; a test keeps the two equal.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True, slots=True)
class About:
    """What the sentences may mention of a server. `public_key` is the line that its account has to accept."""

    name: str
    host: str
    port: int
    username: str
    auth: str
    public_key: str | None = None
    jump_name: str | None = None


@dataclass(frozen=True, slots=True)
class Explained:
    """`sentence` says what happened, `remedy` what a person can do about it."""

    code: str
    sentence: str
    remedy: str


def explain(code: str, about: About) -> Explained:
    """The reason `code`, told for this server. A code of a later version still gets an honest sentence."""
    sentence, remedy = REASONS.get(code, REASONS["internal"])
    if code == "auth_failed":
        remedy = _AUTH_REMEDIES.get(about.auth, remedy)
        remedy += _KEY_LINE if about.public_key else ""
    words = {
        "name": about.name,
        "host": about.host,
        "port": about.port,
        "user": about.username,
        "where": f"[{about.host}]:{about.port}" if ":" in about.host else f"{about.host}:{about.port}",
        "jump": about.jump_name or "its jump server",
        "key": about.public_key or "",
    }
    return Explained(code, sentence.format(**words), remedy.format(**words))


REASONS: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "dns_failed": (
            "The name {host} has no address.",
            (
                "Check the spelling, and that the console's machine can look it up: getent hosts {host}. "
                "An IP address in its place works too."
            ),
        ),
        "connect_refused": (
            "{where} refused the connection: nothing listens on that port, or a firewall rejects us.",
            "Check that sshd runs on {host} (systemctl status ssh) and listens on port {port}.",
        ),
        "connect_timeout": (
            "{where} did not answer in time.",
            (
                "Check that {host} is up and that no firewall between it and the console drops port {port}: "
                "nc -vz {host} {port}"
            ),
        ),
        "network_unreachable": (
            "There is no route to {host} from the console.",
            "Check the console's network, VPN and routes: ip route get {host}",
        ),
        "banner_timeout": (
            "{where} accepted the connection and then said nothing.",
            (
                "The host may be overloaded, or something other than sshd listens on port {port}. "
                "Try ssh -v -p {port} {user}@{host} from the console's machine."
            ),
        ),
        "not_ssh": (
            "What answers on {where} does not speak SSH.",
            "Check the port number: sshd usually listens on 22 (sshd -T | grep ^port on the host).",
        ),
        "host_key_unknown": (
            "Nobody has approved the host key of {name} yet, so nothing was sent to it, not even a user name.",
            (
                "Compare the fingerprint with the one the host itself prints "
                "(ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub), then approve it."
            ),
        ),
        "host_key_changed": (
            "{name} shows another host key than the approved one. The connection was refused before logging in.",
            (
                "If the host was reinstalled, compare the new fingerprint on its own console and approve it. "
                "If not, somebody may be standing in between: do not approve it, find out who answers at {where}."
            ),
        ),
        "auth_failed": (
            "{host} refused to let us in as {user}.",
            "Check that the account {user} exists on {host} and that sshd allows it to log in.",
        ),
        "credential_missing": (
            "There is no usable key or password stored for {user}@{host}.",
            (
                "Edit the server and choose a key or give the password; for the agent, check that SSH_AUTH_SOCK is set "
                "where the console runs and that ssh-add -l lists a key."
            ),
        ),
        "jump_failed": (
            "{jump}, the jump server on the way to {name}, did not let us through.",
            (
                "Mend {jump} first; its own page tells its reason. It also has to permit forwarding: "
                "AllowTcpForwarding yes in its sshd_config."
            ),
        ),
        "connection_lost": (
            "The connection to {where} broke.",
            (
                "Nothing, if it comes back: the console tries again by itself. "
                "If it keeps breaking, look at the host's sshd log and at the network between."
            ),
        ),
        "weak_algorithms": (
            "{host} offers only outdated cryptography that the console does not use.",
            (
                "Update sshd on {host} (OpenSSH 7.4 or later), or remove the Ciphers, KexAlgorithms and "
                "HostKeyAlgorithms lines from its sshd_config."
            ),
        ),
        "channel_refused": (
            "{host} let us in as {user} and then refused to run the probe.",
            "Look for ForceCommand, a login shell such as nologin, or MaxSessions 0 for {user} on {host}.",
        ),
        "no_awk": (
            "{name} has no awk, which the probe is written in.",
            "Install any awk on it: mawk, gawk or BusyBox (apt install mawk).",
        ),
        "no_proc": (
            "{name} has no readable /proc, so there is nothing to measure.",
            "The console watches Linux. If this is Linux, check that /proc is mounted and that {user} may read it.",
        ),
        "probe_failed": (
            "The probe started on {name} and ended with an error.",
            (
                "The detail shows what the host said. Log in as {user} and look whether the shell start files print "
                "or fail."
            ),
        ),
        "flood": (
            "{name} sent far more than the probe ever does, and was cut off.",
            "Look at what the shell start files of {user} print; if nothing, treat the host as suspicious.",
        ),
        "clock_skew": (
            "The clock of {name} differs from the console's.",
            "Check time synchronisation on both (timedatectl). Charts use the console's clock and stay right.",
        ),
        "disk_full": (
            "A filesystem that {name} needs is full.",
            "Free some space on it: df -h shows which one.",
        ),
        "slow": (
            "{name} answers late, so it is asked less often.",
            "The host or the network is loaded. Look at its load, its memory and the round-trip time.",
        ),
        "protocol_error": (
            "{name} answered with lines that the probe does not write; they were dropped.",
            "Look at what the shell start files of {user} print; if nothing, treat the host as suspicious.",
        ),
        "disabled": (
            "{name} is switched off here, so it is not watched.",
            "Enable it to go on.",
        ),
        "internal": (
            "The console failed while watching {name}.",
            "This is a fault of the console. Its log has the details; please report it.",
        ),
    }
)

_AUTH_REMEDIES: Mapping[str, str] = MappingProxyType(
    {
        "agent": "The console offered the keys of its ssh-agent (ssh-add -L shows them). One of them has to stand in "
        "~{user}/.ssh/authorized_keys on {host}, which only {user} may be able to write (chmod 600).",
        "key": "Put the server's public key into ~{user}/.ssh/authorized_keys on {host}, a file that only {user} may "
        "be able to write (chmod 600).",
        "password": "Check the password of {user}, and that sshd on {host} accepts passwords "
        "(PasswordAuthentication yes). A key is the better way.",
    }
)
_KEY_LINE = " The line is: {key}"
