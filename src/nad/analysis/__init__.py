"""Tables, figures and the report, from recorded runs alone: nothing here loads a model or imports an engine."""
