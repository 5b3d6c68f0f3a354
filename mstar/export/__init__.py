"""A run's checkpoint as a model folder that other tools load, with what it is and where it comes from.

In reading order:

- `choosing`: which checkpoint is meant (pure)
- `lineage`: the steps that led to it, and what was measured of it, from the store
- `card`: the model card, and the same for programs (pure)
- `writing`: the folder, whole or not at all
"""
