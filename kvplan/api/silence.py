"""For long runs whose steps nobody follows."""


def silent(doing: str) -> None:
    """Say nothing of what goes on."""
