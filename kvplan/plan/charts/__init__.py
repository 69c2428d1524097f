"""Plans as charts: the same figures as the reports, over a range of contexts and batches."""
