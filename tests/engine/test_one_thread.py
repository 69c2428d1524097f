"""The engine runs on one BLAS thread, and gives back what was set before."""

import pytest
from threadpoolctl import threadpool_info, threadpool_limits

from kvplan.engine.one_thread import one_blas_thread


def blas_threads():
    return {library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"}


@pytest.mark.parametrize("before", [1, 2])
def test_one_thread_inside_and_as_many_as_before_behind_it(before):
    with threadpool_limits(before, user_api="blas"):
        assert blas_threads() == {before}
        with one_blas_thread():
            assert blas_threads() == {1}
        assert blas_threads() == {before}


def test_threads_come_back_after_an_error():
    with threadpool_limits(2, user_api="blas"):
        before = blas_threads()
        with pytest.raises(ZeroDivisionError), one_blas_thread():
            1 / 0  # noqa: B018
        assert blas_threads() == before
