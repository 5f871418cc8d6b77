"""What an apply did, as a value."""

from dataclasses import dataclass

from sluice_node.core.failures import Failure


@dataclass(frozen=True, slots=True)
class Report:
    """`rules` is the nft transaction in bytes of text, 0 when none was needed; `failures` is what was not done."""

    rules: int = 0
    plumbing: int = 0
    flows_cut: int = 0
    announced: int = 0
    failures: tuple[Failure, ...] = ()

    @property
    def changed(self) -> bool:
        """Whether anything was not as it ought to be already."""
        return bool(self.rules or self.plumbing or self.flows_cut or self.announced)
