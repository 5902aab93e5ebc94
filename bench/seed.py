"""Registers a simulated fleet with a console: one key for all, each host key accepted.

Runs as a process of its own, before the console starts, on the console's own settings:

    DATA_DIR=… python -m bench.seed --hosts 1000 --port 2222 --host-key 'ssh-ed25519 …'
"""

import argparse
import asyncio

import asyncssh
from sqlalchemy.ext.asyncio import AsyncConnection

from server_monitor.cli.output import workplace
from server_monitor.fleet.servers import insert_servers
from server_monitor.ssh import hostkeys
from server_monitor.ssh.hostkeys import HostKey
from server_monitor.ssh.vault import Vault, add_key


async def seed(hosts: int, port: int, host_key: str) -> None:
    known = asyncssh.import_public_key(host_key)
    key = HostKey(known.get_algorithm(), known.get_fingerprint(), host_key)
    login = asyncssh.generate_private_key("ssh-ed25519").export_private_key().decode()
    async with workplace() as place, place.db.transaction() as conn:
        vault = Vault(place.settings.key_vault_master_key)
        credential = await add_key(conn, vault, "bench", login)
        names = [f"simulated-{number:05}" for number in range(hosts)]
        rows = [
            {
                "name": name,
                "host": "127.0.0.1",
                "port": port,
                "username": name,
                "auth": "key",
                "credential_id": credential.id,
                "labels": {"env": "bench"},
                "capability": "run",
            }
            for name in names
        ]
        for server_id in await insert_servers(conn, rows):
            await _accept(conn, server_id, key)


async def _accept(conn: AsyncConnection, server_id: str, key: HostKey) -> None:
    await hostkeys.record_offer(conn, server_id, key)
    await hostkeys.trust(conn, server_id, key.fingerprint, pinned_by="bench")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hosts", type=int, required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--host-key", required=True)
    given = parser.parse_args()
    asyncio.run(seed(given.hosts, given.port, given.host_key))


if __name__ == "__main__":
    main()
