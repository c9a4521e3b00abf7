"""A share of all requests, as a token bucket: what is done besides answering stays within it.

Always: of any n requests since the start, no more than share x n were followed by what the bucket pays for; of any n in a
row, no more than share x n and what it holds. Source: the retry throttling of gRPC; Finagle's retry budgets.
"""


class Share:
    """Earns ``share`` with each request, holds ``most``, and pays 1 each time. It starts empty: nothing is done on credit.

    Requests are counted elsewhere and told when it matters (``requests``, all since the start), so that they cost nothing here.
    """

    __slots__ = ("_counted", "_most", "_share", "level")

    def __init__(self, most: float) -> None:
        self._most = most
        self._share = 0.0
        self._counted = 0
        self.level = 0.0

    def change(self, share: float, requests: int) -> None:
        """Earn ``share`` from now on."""
        self._earn(requests)
        self._share = share

    def may_pay(self, requests: int) -> bool:
        """Whether there is something to pay with, after so many ``requests``."""
        self._earn(requests)
        # Twenty times 0.05 is a hair less than 1.
        return self.level >= 1.0 - 1e-9

    def pay(self) -> None:
        """Take 1. Raises ``ValueError`` if it is not there: whoever pays has looked before."""
        if self.level < 1.0 - 1e-9:
            raise ValueError(f"a share of {self.level} cannot pay")
        self.level = max(0.0, self.level - 1.0)

    def _earn(self, requests: int) -> None:
        self.level = min(self._most, self.level + self._share * (requests - self._counted))
        self._counted = requests
