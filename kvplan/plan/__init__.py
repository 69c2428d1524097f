"""The planner: closed formulas over a model's description and a deployment."""
