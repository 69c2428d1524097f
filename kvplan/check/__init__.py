"""The planner against the engine: the same run predicted and measured, figure by figure."""
