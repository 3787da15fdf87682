"""Labels, time and memory that selection needs, beside scikit-activeml, modAL and small-text, in one run."""
