"""How a model is judged: estimators, intervals, tables, and the findings that the gate reads."""
