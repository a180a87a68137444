"""What a support set holds that a plain sample of distinct, readable inputs would not."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Sample"]


@dataclass(frozen=True, kw_only=True)
class Sample:
    """Counts that a certificate carries, as its optional member `sample`, if one is not 0.

    Parameters
    ----------
    unreadable : int
        Certifying examples that cannot be read, or whose label is none of the task's; they
        are among the errors (default: 0).
    duplicates : int
        Examples whose input occurs more than once in the support set, which the signer
        states were all drawn (default: 0).
    repeats : int
        Examples whose input the signer's ledger knew from something else, which the signer
        states are new observations (default: 0).
    """

    unreadable: int = 0
    duplicates: int = 0
    repeats: int = 0

    def fits(self, errors: int, support_size: int) -> bool:
        """Return whether it says something, and nothing that other counts contradict.

        Parameters
        ----------
        errors : int
            Wrong labels among the certifying examples.
        support_size : int
            Number of all examples, n.
        """
        most = max(self.duplicates, self.repeats)
        return self != Sample() and self.unreadable <= errors and most <= support_size

    def statements(self) -> tuple[str, ...]:
        """Return what the counts of errors hold, in plain sentences."""
        if not self.unreadable:
            return ()
        return (
            f"Of these errors {self.unreadable} are examples that could not be read, or whose "
            "label is none of the task's.",
        )

    def assumptions(self) -> tuple[str, ...]:
        """Return what the signer states beyond what every certificate assumes."""
        told = []
        if self.duplicates:
            told.append(
                f"{self.duplicates} examples have an input that occurs more than once in the "
                "support set: the signer states that each of them was drawn, and none copied."
            )
        if self.repeats:
            told.append(
                f"{self.repeats} examples have an input that the signer had used before: the "
                "signer states that they are new observations, drawn independently of that use."
            )
        return tuple(told)
