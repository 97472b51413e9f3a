"""The nouns of the project as immutable records, the run's configuration, the gate's policy, and where they are kept."""
