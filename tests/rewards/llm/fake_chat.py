"""A language model that says what a script tells it, and remembers what it was asked."""

from rewards.llm.server import Reply, Usage, UsageReport


class FakeChat:
    """Each request gets the next of ``replies``; errors are raised; what is callable is given the request.

    The last one stands for all further requests.
    """

    def __init__(self, *replies):
        self.replies, self.asked, self.closed, self.usage = list(replies), [], 0, Usage()

    async def chat(self, messages, sampling):
        self.asked.append((messages, sampling))
        said = self.replies.pop(0) if len(self.replies) > 1 else self.replies[0]
        if callable(said):
            said = said(messages, sampling)
        if isinstance(said, Exception):
            raise said
        reply = said if isinstance(said, Reply) else Reply(said)
        if reply.usage is None:
            reply = Reply(reply.text, reply.is_cut, usage=UsageReport(prompt_tokens=10, completion_tokens=3))
        self.usage.add(reply.usage)
        return reply

    async def close(self):
        self.closed += 1
