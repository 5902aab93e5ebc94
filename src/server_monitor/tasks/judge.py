"""The policy engine with its parser: what every caller asks before a command runs.

```python
judge = Judge(rules_of(settings), ShellParser())
verdict = await judge.judge("rm -rf /etc", Context(shell="bash", user="deploy", hosts=12, host_ids=ids))
```
"""

import asyncio
from concurrent.futures import ThreadPoolExecutor

from server_monitor.errors import FieldError, Invalid
from server_monitor.settings import Settings
from server_monitor.tasks.policy.decide import RuleSet, decide, failed
from server_monitor.tasks.policy.parsing import ParserFailed
from server_monitor.tasks.policy.patterns import BadPattern, Patterns, compiled
from server_monitor.tasks.policy.verdict import Context, Mode, Verdict
from server_monitor.tasks.shell_parser import AT_ONCE, ShellParser

DEADLINE_S = 5.0


class Judge:
    """Judges commands under one set of rules. Close it when the console stops."""

    def __init__(self, rules: RuleSet, parser: ShellParser) -> None:
        self.rules = rules
        self._parser = parser
        # Threads of its own: a burst of commands must not take those that the console needs for its files.
        self._threads = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="policy")

    async def judge(self, command: str, context: Context) -> Verdict:
        """The verdict. Whatever fails on the way is a verdict too, and never `allow`."""
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(DEADLINE_S):
                return await loop.run_in_executor(self._threads, self.judge_now, command, context)
        except TimeoutError:
            return failed(command, context, self.rules, "engine.error", "could not be judged in time")

    def judge_now(self, command: str, context: Context) -> Verdict:
        """The same for callers without an event loop; it blocks for as long as the parser takes."""
        try:
            version = self._parser.version()
        except ParserFailed as failure:
            why = str(failure)
            return failed(command, context, self.rules, "engine.parser", why[:1].lower() + why[1:].rstrip("."))
        try:
            return decide(command, context, self.rules, self._parser.parse, parser_version=version)
        except Exception as error:  # noqa: BLE001  # A bug of ours must never let a command through.
            why = f"made the policy engine fail ({type(error).__name__})"
            return failed(command, context, self.rules, "engine.error", why)

    def close(self) -> None:
        """End the threads; what they still judge is let finish."""
        self._threads.shutdown(wait=True)


def rules_of(settings: Settings) -> RuleSet:
    """The rules that the settings ask for. Raises Invalid naming the setting whose pattern does not compile."""
    return RuleSet(
        mode=Mode(settings.task_policy_mode),
        deny=_patterns("TASK_DENY_PATTERNS", settings.task_deny_patterns),
        allow=_patterns("TASK_ALLOW_PATTERNS", settings.task_allow_patterns),
        write_paths=settings.task_allow_write_paths,
        allow_overrides_deny=settings.task_allow_overrides_deny,
        approve_above_hosts=settings.task_approve_above_hosts,
    )


def _patterns(setting: str, texts: tuple[str, ...]) -> Patterns:
    try:
        return compiled(texts)
    except BadPattern as bad:
        raise Invalid([FieldError(setting, str(bad))]) from None
