"""`python -m server_monitor` is `server-monitor`."""

from server_monitor.cli.main import main

main()
