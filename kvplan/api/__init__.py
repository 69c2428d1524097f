"""What Python users call, and the commands too: each function answers one question with a report.

Everything here is to be had from ``kvplan`` itself: ``kvplan.capacity``.
"""
