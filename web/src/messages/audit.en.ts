// The words of the audit pages.

import { count } from "../format";

const plurals = new Intl.PluralRules("en");

function plural(n: number, one: string, other: string): string {
  return `${count(n)} ${plurals.select(n) === "one" ? one : other}`;
}

const records = (n: number) => plural(n, "record", "records");

/** What a sentence may speak of. `what` is the name of what was acted upon, or its id where no name is known. */
export interface Spoken {
  what: string;
  meta: Readonly<Record<string, unknown>>;
  failed: boolean;
}

type Predicate = (spoken: Spoken) => string;

const number = (value: unknown): number | null => (typeof value === "number" ? value : null);
const named = (kind: string, what: string) => (what ? `${kind} ${what}` : `a ${kind}`);
/** `did`, or that it was tried and did not succeed. */
const act =
  (did: string, tried: string, kind: string): Predicate =>
  ({ what, failed }) =>
    failed ? `tried to ${tried} ${named(kind, what)}` : `${did} ${named(kind, what)}`;

/** With the number of servers, where it is known. */
function ordered(words: string, meta: Readonly<Record<string, unknown>>): string {
  const many = number(meta.server_count);
  return many === null ? words : `${words} on ${plural(many, "server", "servers")}`;
}

/** What follows the name of who acted, for every action of the catalogue in audit/chain.py. */
const sentences: Record<string, Predicate> = {
  "audit.archive": () => "moved records of the audit log to the archive",
  "audit.cleanup": ({ meta }) => {
    const rows = number(meta.count) ?? number(meta.deleted);
    return rows === null ? "deleted archived records from the database" : `deleted ${records(rows)}, archived before, from the database`;
  },
  "audit.export": ({ meta }) => `began to export the audit log${typeof meta.format === "string" ? ` as ${meta.format.toUpperCase()}` : ""}`,
  "audit.export_finished": ({ meta, failed }) => {
    const rows = number(meta.rows);
    if (failed) return "stopped an export of the audit log before its end";
    return rows === null ? "finished an export of the audit log" : `exported ${records(rows)} of the audit log`;
  },
  "audit.hold": ({ what, meta }) => {
    if (meta.change === "remove") return `released ${named("hold", what)}`;
    return meta.change === "keep" ? `went on keeping ${named("hold", what)}` : `placed ${named("hold", what)} on the audit log`;
  },
  "audit.repair": () => "made what the audit log keeps beside its records anew",
  "audit.verify": ({ failed, meta }) => {
    if ("pid" in meta) return "began to verify the audit log";
    if (!failed) return "verified the audit log and found it intact";
    if ("recovered" in meta || "why" in meta) return "came to no verdict verifying the audit log";
    if ("truncated" in meta) return "verified the audit log, with findings";
    const is_broken = [meta.integrity, meta.completeness, meta.authenticity].includes("broken");
    return `verified the audit log and found it ${is_broken ? "broken" : "not proven"}`;
  },
  "auth.login": () => "logged in",
  "auth.login_failed": () => "failed to log in",
  "auth.logout": () => "logged out",
  "file.download": ({ what, failed, meta }) =>
    meta.listing ? `tried to look at the files of ${what || "a server"}` : `${failed ? "tried to copy" : "copied"} a file from ${what || "a server"}`,
  "file.upload": ({ what, failed }) => `${failed ? "tried to copy" : "copied"} a file to ${what || "a server"}`,
  "group.create": act("created", "create", "group"),
  "group.delete": act("removed", "remove", "group"),
  "group.grant": act("changed who holds a role in", "change who holds a role in", "group"),
  "group.members": act("changed the servers of", "change the servers of", "group"),
  "group.update": act("changed", "change", "group"),
  "host_key.changed": ({ what }) => `saw another host key than the approved one on ${named("server", what)}`,
  "host_key.trust": act("approved the host key of", "approve the host key of", "server"),
  "key.rotate": () => "replaced a key of the console",
  "recording.alarm": ({ what, meta }) =>
    meta.verdict === "missing" ? `found the recording of a session on ${what || "a server"} missing` : `found the recording of a session on ${what || "a server"} damaged`,
  "recording.archive": ({ what }) => `moved the recording of a session on ${what || "a server"} to the archive`,
  "recording.export": ({ what }) => `exported the recording of a session on ${what || "a server"}`,
  "recording.prune": ({ what }) => `deleted the recording of a session on ${what || "a server"}, archived before, from the disk`,
  "recording.search": () => "searched the recordings of terminals",
  "recording.verify": ({ what, failed }) => (failed ? `verified the recording of a session on ${what || "a server"} and found it wrong` : `verified the recording of a session on ${what || "a server"}`),
  "recording.view": ({ what }) => `watched the recording of a session on ${what || "a server"}`,
  "server.create": act("added", "add", "server"),
  "server.delete": act("removed", "remove", "server"),
  "server.import": ({ meta }) => {
    const created = number(meta.created) ?? number(meta.count);
    return created === null ? "imported servers" : `imported ${plural(created, "server", "servers")}`;
  },
  "server.update": act("changed", "change", "server"),
  "session.end": () => "ended a session",
  "settings.setup": () => "set up the console and made its first administrator",
  "snippet.create": act("saved", "save", "command"),
  "snippet.delete": act("removed", "remove", "saved command"),
  "snippet.update": act("changed", "change", "saved command"),
  "ssh_key.create": act("stored", "store", "SSH key"),
  "ssh_key.delete": act("removed", "remove", "SSH key"),
  "system.clock_step": () => "noticed that the clock jumped",
  "system.start": ({ meta }) => (meta.clean === false ? "started after an unclean end" : "started"),
  "system.stop": ({ failed }) => (failed ? "stopped because of an error" : "stopped"),
  "task.approve": ({ failed }) => (failed ? "tried to approve a command" : "approved a command of somebody else"),
  "task.cancel": ({ failed }) => (failed ? "tried to cancel a command" : "cancelled a command"),
  "task.create": ({ meta }) => ordered("asked to run a command", meta),
  "task.denied": ({ meta }) => ordered("asked to run a command that the policy refuses", meta),
  "task.expire": () => "let a command expire that nobody approved in time",
  "task.fail": ({ what }) => `ran a command that did not succeed on ${what || "a server"}`,
  "task.finish": ({ what }) => `ran a command to its end on ${what || "a server"}`,
  "task.recover": () => "took over commands after an end of the console",
  "task.reject": ({ failed }) => (failed ? "tried to reject a command" : "rejected a command of somebody else"),
  "task.start": ({ what }) => `started a command on ${what || "a server"}`,
  "task.timeout": ({ what }) => `ran out of time with a command on ${what || "a server"}`,
  "terminal.attach": ({ what }) => `came back to a terminal on ${what || "a server"}`,
  "terminal.connect": ({ what, failed }) => `${failed ? "was refused" : "opened"} a terminal on ${what || "a server"}`,
  "terminal.disconnect": ({ what }) => `left a terminal on ${what || "a server"}`,
  "terminal.head": ({ what }) => `went on in a terminal on ${what || "a server"}`,
  "terminal.recover": () => "closed the terminals that a console left when it died",
  "terminal.stop": ({ what }) => `stopped a terminal on ${what || "a server"}`,
  "token.create": act("created", "create", "API token"),
  "token.revoke": act("revoked", "revoke", "API token"),
  "user.create": act("created", "create", "user"),
  "user.delete": act("removed", "remove", "user"),
  "user.disable": act("disabled", "disable", "user"),
  "user.enable": act("enabled", "enable", "user"),
  "user.password": act("set a new password for", "set a new password for", "user"),
  "user.update": act("changed the role of", "change the role of", "user"),
};

export const audit = {
  title: "Audit log",
  records,
  not_allowed: "The audit log is for administrators and auditors.",
  sections: { log: "Log", proof: "Verification", archive: "Archive and holds" } as Record<string, string>,
  sentences,
  unknown_sentence: (action: string) => `did “${action}”`,
  unreadable: "This record cannot be read",
  system: "The console",
  nobody: "Somebody",
  from: "From",
  to: "To",
  user: "Who",
  anybody: "Anybody",
  action: "Action",
  any_action: "Every action",
  all_of: (family: string) => `all of ${family}`,
  outcome: "Outcome",
  any_outcome: "Every outcome",
  outcomes: {
    success: "Success",
    failure: "Failure",
    denied: "Denied",
    error: "Error",
    unknown: "Unknown",
    begun: "Begun",
  } as Record<string, string>,
  target_type: "Kind of target",
  target_id: "Target id",
  ip: "IP address",
  request_id: "Request id",
  more: "More filters",
  clear: "Clear filters",
  filters: "Filters",
  columns: { time: "Time (UTC)", what: "What happened", outcome: "Outcome", ip: "From", seq: "No." },
  table: "Records of the audit log",
  loaded: (n: number, more: boolean) => (more ? `${records(n)} shown, more below` : records(n)),
  loading_more: "Loading older records…",
  empty: "No record matches",
  empty_detail: "Change the filters or clear them.",
  export: "Export",
  verify: "Verify",
  open: (seq: number) => `Record ${seq}`,

  record: {
    title: (seq: number) => `Record ${count(seq)}`,
    close: "Close the record",
    when: "When",
    who: "Who",
    target: "Target",
    via: "Through",
    request: "Request",
    reason: "Reason",
    changes: "Changes",
    was: "was",
    becomes: "is now",
    intent: "Began with",
    raw: "Full record",
    hash: "Leaf hash",
    proof: "Proof",
    checking: "Checking…",
    proven: (size: number) =>
      `This browser computed the hash of the record and followed its proof to the signed checkpoint of ${records(size)}. The record is in the log, unchanged.`,
    hash_differs: "The hash of this record is not what the list said. The record was changed.",
    refuted: "The proof does not lead to the signed checkpoint. The log was changed.",
    waiting: "Not under a checkpoint yet; the next one follows within a minute.",
    unable: "This browser computes hashes only over HTTPS or on the console's own machine. Nothing was checked.",
    same_request: "All of this request",
    same_target: "All about this target",
    same_user: "All by this user",
    missing: "This record is not in the database. It may have been moved to the archive.",
  },

  exporting: {
    title: "Export the audit log",
    format: "Format",
    formats: {
      csv: "CSV, for spreadsheets and people",
      json: "JSON, with its signed checkpoint",
    } as Record<string, string>,
    chosen: "Only what the filters choose",
    nothing_chosen: "Every record; no filter is set",
    whole: "Go on past 50,000 records until all are exported",
    whole_hint: "Parts are fetched one after the other from the same snapshot and saved as one file.",
    recorded: "The export itself is recorded: who, when, with which filters, how many records.",
    start: "Export",
    running: (done: string, rows: string) => `${done} received, ${rows}`,
    rows: (n: number) => records(n),
    progress: "Progress of the export",
    stop: "Stop",
    finished: (rows: number, size: string) => `${records(rows)} exported, ${size}. The file is in your downloads.`,
    more_left: "There are more records. Narrow the filters, or export all.",
    pruned: (n: number, before: string) =>
      `The records before ${count(n)} (until ${before}) have moved to the archive, and this file does not hold those that you may have asked for. On the console's machine, this writes both into one file:`,
  },

  whole: {
    title: "Verify the whole log",
    intro:
      "Reads every record, in the database and in the archive. Runs beside the console at lowest priority, and is recorded in the log.",
    start: "Verify",
    again: "Verify again",
    running: (done: number, total: number | null) =>
      total === null ? "Opening the log…" : `${count(Math.min(done, total))} of ${records(total)} read`,
    progress: "Progress of the verification",
    asked: (who: string, when: string) => `Asked for by ${who}, ${when}`,
    never: "The whole log has not been verified yet.",
    outcomes: {
      success: "The log is intact",
      failure: "The log is broken",
      unknown: "Not proven",
      error: "Could not be verified",
    } as Record<string, string>,
    cut_off: "Cut off before it came to a verdict",
    details: {
      success: "Nothing was changed, removed or reordered since it was written.",
      failure: "Keep everything as it is, download the checkpoint below, and ask whoever runs the console.",
      unknown: "Nothing wrong was found, and not everything could be shown right.",
      error: "This says nothing about the log itself. Remove the cause and verify again.",
    } as Record<string, string>,
    done: (who: string, when: string, took: string) => `By ${who} ${when}, in ${took}`,
    aspects: {
      integrity: "Integrity: no record was changed",
      completeness: "Completeness: none is missing",
      authenticity: "Authenticity: the console's key signed it",
    } as Record<string, string>,
    words: { intact: "intact", broken: "broken", unproven: "not proven" } as Record<string, string>,
    first_bad: "First bad record",
    between: (first: number, last: number) => (first === last ? count(first) : `one of ${count(first)} to ${count(last)}`),
    read: "Records read",
    signed: "Signed up to record",
    more: (n: number) => `and ${count(n)} more findings: server-monitor audit verify --json lists them.`,
    warnings: "To bear in mind",
    own: "Here the console judges its own log. To rely on nobody, verify the bundle below on another machine.",
  },

  evidence: {
    title: "Verify on another machine",
    intro: "With these files anybody can verify the log, and an export of it, with no account and no database.",
    key: "Public key",
    key_hint: "Download it once, now, and keep it where the console's operators cannot change it: every later proof rests on it.",
    get_key: "Download public key",
    checkpoint: "Newest checkpoint",
    checkpoint_hint: "A receipt. Nobody can rewrite what came before it unnoticed while you keep it. Once a week is good.",
    get_checkpoint: "Download checkpoint",
    bundle: "The log itself",
    bundle_hint: (n: number) => `A bundle of ${records(n)} with all checkpoints and the program that verifies them.`,
    get_bundle: "Download bundle",
    with_archive: (n: number) => `With the ${records(n)} that are only in the archive`,
    receiving: (done: string, n: number) => `${done} of ${records(n)} received`,
    received: (size: string) => `${size} are in your downloads.`,
    progress: "Progress of the bundle",
    stop: "Stop",
    command: "There, with Python 3.9 or newer and no network",
    command_hint: "Leave out what you have not got. --csv proves an export, as it was downloaded, line by line.",
    filtered:
      "No export can show that a filter left nothing out. The bundle can: it always holds every record.",
  },

  proof: {
    title: "Quick check",
    intro: "What this browser finds out by itself, without trusting the console.",
    covers:
      "It covers the signature of the newest checkpoint, whether the log continues what this browser saw before, and the newest 5 records. It does not read the others.",
    again: "Check again",
    checking: "Checking…",
    good: "Nothing contradicts the log",
    warn: "Nothing contradicts the log, with a reservation",
    open: "Could not be checked",
    bad: "Something does not fit together",
    bad_detail: "Keep this page, download both checkpoints, and ask whoever runs the console.",
    signature: "Signature",
    signed: "The key below signed the newest checkpoint.",
    forged: "The newest checkpoint does not carry a valid signature of the key below.",
    signature_unable: "This browser cannot check Ed25519 signatures. Download the checkpoint and verify it elsewhere.",
    root_differs: "The checkpoint says one thing and its signed text another.",
    key: "Key",
    key_first: "This browser saw the key for the first time. Compare it with what the operator gave you on another way.",
    key_same: "The key is the same as at your last visit.",
    key_changed: "The key is not the one of your last visit. Unless it was replaced on purpose, do not trust this log.",
    history: "History",
    history_first: "First visit: this checkpoint is kept in this browser, and the next visit must continue it.",
    history_same: (when: string) => `Nothing was added since the checkpoint that you saw ${when}.`,
    history_extends: (n: number, when: string) =>
      `The log begins with all that you saw ${when}; ${records(n)} ${n === 1 ? "was" : "were"} added since.`,
    history_shorter: "The log has fewer records than it had when this browser saw it last. Records were cut off.",
    history_differs: "The log does not begin with what this browser saw last. Records were changed.",
    history_origin: "This is another log, or a new epoch of it, than this browser saw last.",
    history_unable: "Whether the log continues what this browser saw last could not be checked: the console did not answer that. Check again.",
    history_pruned: (when: string) =>
      `What you saw ${when} has moved to the archive, so the console alone cannot show that the log continues it. Download that checkpoint and verify it with a bundle that holds the archive.`,
    newest: "Newest records",
    newest_good: (n: number) => `Proofs of the newest ${records(n)} under the checkpoint lead to its root.`,
    newest_bad: (seq: number) => `Record ${seq} is not what the checkpoint covers.`,
    newest_none: "No records under a checkpoint to try.",
    newest_unable: "The console did not answer for all of the newest records. Check again.",
    anchor: "Outside copy",
    anchor_none: "No checkpoint has left this console yet. Without a copy outside, nobody can notice that the whole log was replaced.",
    anchor_old: (when: string) => `The newest copy outside is from ${when}: more than a day ago.`,
    anchor_good: (when: string) => `This checkpoint was copied outside ${when}.`,
    memory: "Memory",
    memory_none: "This browser keeps nothing for the next visit. Download the checkpoint instead.",
    unable: "This browser computes hashes only over HTTPS or on the console's own machine. Verify on another machine instead.",
    kept: (n: number, when: string) =>
      `The checkpoint of ${records(n)} that you saw ${when} stays in this browser as evidence.`,
    get_kept: "Download the earlier checkpoint",
    begin_anew: "Keep the newest instead",
    size: "Covers",
    made: "Made",
    root: "Root",
    origin: "Log",
    copy_key: "Copy key",
  },

  archive: {
    intro: "Records are archived and read back before they leave the database. Nothing is deleted otherwise.",
    now: "Archive now",
    now_started: "Archiving has begun. The list below follows.",
    next_deletion: "Next deletion",
    next_run: "Next run",
    running: "A run is under way.",
    failed: (when: string) => `The last run failed, ${when}. It is tried again every quarter of an hour.`,
    kept: "In the database",
    archived: "In the archive",
    retention: "Retention",
    for_ever: "for ever",
    days: (n: number) => plural(n, "day", "days"),
    none_planned: "none planned",
    place: "Archive",
    local: "On this machine. Set AUDIT_ARCHIVE_URL to keep it elsewhere.",
    cleanup_off: "Clean-up is switched off.",
    obstacles: {
      kept_for_ever: "Records are kept for ever.",
      cleanup_is_off: "Clean-up is switched off.",
      too_young: "No record is old enough yet.",
      not_verified: "The oldest segment could not be read back and verified yet.",
      held: "A hold keeps the oldest records.",
      hold_changed: "A hold was changed in the database by hand: nothing is deleted until it is put back.",
      not_anchored: "The oldest segment waits for a checkpoint outside this console.",
      clock_moved: "The clock of the console has jumped: nothing is deleted until it is back, or a day has passed.",
    } as Record<string, string>,
    held_by: (name: string) => `The hold “${name}” keeps the oldest records.`,
    segments: "Segments",
    no_segments: "Nothing is archived yet",
    no_segments_detail: "Records move to the archive when their time comes; “Archive now” does it at once.",
    columns: { records: "Records", period: "Period", size: "Size", state: "State", lock: "Locked", sum: "SHA-256" },
    states: { sealed: "Sealed", uploaded: "Uploaded", verified: "Archived, verified", pruned: "Only in the archive" } as Record<string, string>,
    locked_until: (day: string) => `until ${day}`,
    liftable: "Not in compliance mode: an administrator of the store can lift it.",
    not_locked: "no",
    lock_hint: "Until when the store itself lets nobody delete or replace the segment.",
    shown: (n: number, total: number) => `The newest ${count(n)} of ${count(total)} segments.`,
    holds: "Holds",
    holds_intro: "A hold keeps what its filters choose, and everything newer, in the database, whatever its age.",
    no_holds: "No holds",
    add_hold: "Place hold",
    hold_name: "Name",
    hold_reason: "Reason",
    hold_reason_hint: "Why this must stay, for whoever reads it in a year.",
    hold_filters: "Keeps",
    everything: "every record",
    since: "Since",
    by: "By",
    release: "Release",
    release_title: (name: string) => `Release the hold ${name}?`,
    release_detail: "What only it kept is deleted from the database when it is old enough; the archive keeps it.",
    released: (name: string) => `${name} was released`,
    placed: (name: string) => `${name} was placed`,
  },
};
