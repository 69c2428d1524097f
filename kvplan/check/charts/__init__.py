"""What the engine measured, as charts: what options cost, and how a run went beside its plan."""
