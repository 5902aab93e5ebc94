"""Every counter, gauge and histogram the console exposes about itself. `node_*` names belong to servers, not here."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

registry = CollectorRegistry()

http_requests = Counter(
    "server_monitor_http_requests", "Requests answered.", ["method", "route", "status"], registry=registry
)
http_seconds = Histogram(
    "server_monitor_http_request_seconds",
    "Time to answer a request.",
    ["route"],
    registry=registry,
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
)
audit_records = Counter("server_monitor_audit_records", "Audit records written.", ["action"], registry=registry)
audit_housekeeping_failing = Gauge(
    "server_monitor_audit_housekeeping_failing",
    "1 while the last run could not archive, verify or delete audit records, else 0.",
    registry=registry,
)
database_commits = Counter("server_monitor_database_commits", "Commits of the writer.", registry=registry)
database_transactions = Counter(
    "server_monitor_database_transactions", "Transactions that those commits made durable.", registry=registry
)
bus_dropped = Counter("server_monitor_bus_dropped_messages", "Hints dropped by full queues.", registry=registry)
servers_by_status = Gauge(
    "server_monitor_servers", "Servers that are watched, by status.", ["status"], registry=registry
)
live_browsers = Gauge("server_monitor_live_browsers", "Open live connections.", registry=registry)
live_frames_encoded = Counter(
    "server_monitor_live_frames_encoded", "Frames of samples encoded, each once for all.", registry=registry
)
live_frames_dropped = Counter(
    "server_monitor_live_frames_dropped", "Frames of samples that slow browsers lost.", registry=registry
)
logins = Counter("server_monitor_logins", "Logins by outcome.", ["outcome"], registry=registry)
password_hashes = Counter("server_monitor_password_hashes", "Passwords hashed or checked.", registry=registry)
history_stored = Counter("server_monitor_history_samples", "Samples written to history.", registry=registry)
history_dropped = Counter(
    "server_monitor_history_dropped_samples", "Samples lost because the disk took none.", registry=registry
)
history_refused = Counter(
    "server_monitor_history_refused_samples", "Samples with an impossible time.", registry=registry
)
history_damaged = Counter(
    "server_monitor_history_damaged_blocks", "Blocks that could not be read and were left out.", registry=registry
)
recordings_failed = Counter(
    "server_monitor_recordings_failed", "Sessions that could not be recorded any more.", registry=registry
)
recording_alarms = Counter("server_monitor_recording_alarms", "Recordings found missing or damaged.", registry=registry)
samples_taken = Counter("server_monitor_samples_taken", "Samples collected from servers.", registry=registry)
collector_failures = Counter(
    "server_monitor_collector_failures", "Connections and probes given up, by reason.", ["reason"], registry=registry
)
probe_lines_refused = Counter(
    "server_monitor_probe_lines_refused", "Lines dropped because the probe does not write such.", registry=registry
)
probe_sections_refused = Counter(
    "server_monitor_probe_sections_refused", "Sections dropped from otherwise good answers.", registry=registry
)
server_reboots = Counter("server_monitor_server_reboots", "Reboots noticed while watching.", registry=registry)
ssh_connections = Gauge("server_monitor_ssh_connections", "SSH connections that are open now.", registry=registry)
ssh_rests = Counter(
    "server_monitor_ssh_rests", "Times a host had to wait because it kept the console busy.", registry=registry
)
ssh_connects = Counter(
    "server_monitor_ssh_connects", "Attempts to open an SSH connection.", ["outcome"], registry=registry
)
tasks_finished = Counter(
    "server_monitor_tasks_finished", "Tasks that have ended, by status.", ["status"], registry=registry
)
tasks_running = Gauge("server_monitor_tasks_running", "Tasks that this console is running now.", registry=registry)
tasks_recovered = Counter(
    "server_monitor_tasks_recovered", "Tasks taken over from a console that had died.", registry=registry
)
terminal_sessions = Gauge(
    "server_monitor_terminal_sessions", "Terminal sessions that this console holds.", registry=registry
)
terminal_sessions_ended = Counter(
    "server_monitor_terminal_sessions_ended",
    "Terminal sessions that have ended, by status.",
    ["status"],
    registry=registry,
)
terminal_output_bytes = Counter(
    "server_monitor_terminal_output_bytes", "Bytes that shells in terminals have printed.", registry=registry
)
terminal_pauses = Counter(
    "server_monitor_terminal_pauses", "Times a shell had to wait for its browser or for the disk.", registry=registry
)
file_bytes = Counter(
    "server_monitor_file_bytes", "Bytes of files copied to and from servers.", ["direction"], registry=registry
)
