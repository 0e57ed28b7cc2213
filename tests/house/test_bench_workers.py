"""The measurement of two workers beside one."""

from workers import lines


def test_medians_of_both_are_compared() -> None:
    """The table has rates, how many times as much two answer, CPU time, and what wrk took."""

    def sample(rate: float, cpu: float) -> dict[str, float]:
        return {"rate": rate, "cpu_us": cpu, "loader": 0.25}

    one, two = [sample(rate, 60) for rate in (900, 1000, 5000)], [sample(1850, 61)]
    assert [*lines({"work": {1: one, 2: two}})][2:] == [
        "| work | 1,000 | 1,850 | 1.85 | 60.0 | 61.0 | 0.25 | 0.25 |"
    ]
