"""Makes anew what a database keeps beside its records and what follows from them: inner nodes, and the frontier of what
was pruned. Records, checkpoints and the head's own frontier are never touched: nothing that shows a forgery goes.
"""

from sqlalchemy import delete, insert, select, update

from server_monitor.audit import log
from server_monitor.audit.chain import AuditActor, AuditTarget, Event
from server_monitor.audit.nodes import Repair
from server_monitor.db.engine import Database
from server_monitor.db.tables import audit_head, audit_nodes
from server_monitor.errors import Conflict

SHOWN = 20  # nodes that the record names

_LOG = AuditTarget("audit_log", "1")


async def apply(db: Database, repair: Repair, *, actor: AuditActor) -> None:
    """Change what a verification of the whole log found wrong. The caller has asked whether `actor` may.

    Appends `audit.repair`. Raises Conflict when records were pruned since the verification.
    """
    c = audit_nodes.c
    gone = [*repair.remove, *((level, index) for level, index, _ in repair.put)]
    async with db.transaction() as conn:
        for level, index in gone:
            await conn.execute(delete(audit_nodes).where(c.level == level, c.idx == index))
        if repair.put:
            rows = [{"level": level, "idx": index, "hash": node} for level, index, node in repair.put]
            await conn.execute(insert(audit_nodes), rows)
        min_index = (await conn.execute(select(audit_head.c.min_index).with_for_update())).scalar_one()
        if min_index != repair.first_seq:
            raise Conflict("Records were pruned since the log was verified; repair it again.")
        if repair.prefix is not None:
            await conn.execute(update(audit_head).values(prefix=b"".join(repair.prefix)))
        await log.append(conn, Event("audit.repair", actor, _LOG, meta=_said(repair)))


def _said(repair: Repair) -> dict[str, object]:
    first = [{"level": level, "index": index, "hash": node.hex()} for level, index, node in repair.put[:SHOWN]]
    return {
        "nodes_made": len(repair.put),
        "nodes_removed": len(repair.remove),
        "prefix_made": repair.prefix is not None,
        "nodes": first,
    }
