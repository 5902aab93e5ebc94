"""What an SSH agent holds, asked only when a login by agent failed, to say why."""

import asyncio

import asyncssh

ANSWER_TIMEOUT_S = 2.0


async def trouble(agent_socket: str) -> str | None:
    """Why the agent can log in nowhere, as a sentence; None when it holds at least one key."""
    try:
        async with asyncio.timeout(ANSWER_TIMEOUT_S), await asyncssh.connect_agent(agent_socket) as agent:
            keys = await agent.get_keys()
    except TimeoutError:
        return f"The SSH agent at {agent_socket} does not answer."
    except (OSError, ValueError):
        return f"There is no SSH agent at {agent_socket}."
    return None if keys else f"The SSH agent at {agent_socket} holds no keys; add one with ssh-add."
